"""Functions in LLVM's own language, for what TIR has no words for: atomics, and the order of instructions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import StringImm

from assay.compile.schedules.ir import Buffer, Expr, Stmt, load

__all__ = ["LlvmFunction", "address", "importing"]


@dataclass(frozen=True, kw_only=True)
class LlvmFunction:
    """A function in LLVM's assembly language (LLVM Language Reference Manual), inlined where it is called.

    ``definition`` defines ``name``; the same name always has the same definition.
    """

    name: str
    definition: str
    returns: str = "int32"

    def call(self, *arguments: Expr) -> Expr:
        """The result of the function."""
        return tirx.call_extern(self.returns, self.name, *arguments)


def address(buffer: Buffer, offset: int | Expr) -> Expr:
    """Where an element of a flat buffer lies."""
    return tirx.address_of(load(buffer, offset))


def importing(functions: Iterable[LlvmFunction], body: Stmt) -> Stmt:
    """``body`` with the functions that it calls."""
    for function in {function.name: function for function in functions}.values():
        text = StringImm(function.definition)
        body = tirx.AttrStmt(tirx.IntImm("int32", 0), "pragma_import_llvm", text, body)
    return body
