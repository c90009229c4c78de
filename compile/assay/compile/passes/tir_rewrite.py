"""Rebuild a PrimFunc with other buffers, variables and expressions: TVM has no such visitor for Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import MatchBufferRegion, SBlock, SBlockRealize

from assay.compile.schedules.ir import Buffer, Expr, Stmt

__all__ = ["FunctionRewriter"]


class FunctionRewriter:
    """Rebuilds statements from the leaves up. Subclasses say what becomes of buffers, values and stores.

    ``buffers`` maps old buffers to new ones; buffers that the function allocates are added by ``buffer``.
    """

    def __init__(self) -> None:
        self.buffers: dict[Buffer, Buffer] = {}

    def buffer(self, old: Buffer) -> Buffer:
        """The buffer in the place of one that the function allocates or declares."""
        return old

    def value(self, expr: Expr) -> Expr:
        """The expression in the place of one that is computed with."""
        return expr

    def index(self, expr: Expr) -> Expr:
        """The expression, of the same dtype, in the place of an index, extent or condition of a loop nest."""
        return expr

    def binding(self, var: Expr, value: Expr) -> tuple[Expr, Expr]:
        """Variable and value in the place of ``var = value``."""
        return var, self.value(value)

    def store(self, statement: Stmt, indices: list[Expr]) -> Stmt:
        """The statement in the place of a store, whose indices are done."""
        buffer = self._mapped(statement.buffer)
        return tirx.BufferStore(buffer, self.value(statement.value), indices)

    def region(self, region: Any) -> Any:
        """The part of a buffer in the place of one that a block reads or writes."""
        ranges = [
            tvm.ir.Range.from_min_extent(self.index(r.min), self.index(r.extent)) for r in region.region
        ]
        return tirx.stmt.BufferRegion(self._mapped(region.source), ranges)

    def rewrite(self, function: Any, parameters: Mapping[Buffer, Buffer]) -> Any:
        """``function`` with other parameters; those not in ``parameters`` stay."""
        self.buffers.update(parameters)
        fresh = [self.buffers.get(p, p) for p in function.params]
        return tirx.PrimFunc(fresh, self.statement(function.body), function.ret_type, function.attrs)

    def statement(self, node: Stmt) -> Stmt:
        """The statement in the place of ``node``. Raises NotImplementedError for a kind that is not known."""
        for kind, rebuild in self._rebuilders():
            if isinstance(node, kind):
                return rebuild(node)
        raise NotImplementedError(f"a {type(node).__name__} cannot be rewritten")

    def _rebuilders(self) -> tuple[tuple[type, Callable[[Any], Stmt]], ...]:
        return (
            (tirx.SeqStmt, lambda n: tirx.SeqStmt([self.statement(each) for each in n.seq])),
            (tirx.For, self._for),
            (tirx.BufferStore, lambda n: self.store(n, [self.index(i) for i in n.indices])),
            (SBlockRealize, self._realize),
            (SBlock, self._block),
            (tirx.IfThenElse, self._branch),
            (tirx.Bind, lambda n: tirx.Bind(*self.binding(n.var, n.value))),
            (tirx.AllocBuffer, lambda n: tirx.AllocBuffer(self._declared(n.buffer))),
            (tirx.DeclBuffer, self._declaration),
            (tirx.AttrStmt, self._attribute),
            (tirx.While, lambda n: tirx.While(self.value(n.condition), self.statement(n.body))),
            (tirx.Evaluate, lambda n: tirx.Evaluate(self.value(n.value))),
        )

    def _mapped(self, buffer: Buffer) -> Buffer:
        return self.buffers.get(buffer, buffer)

    def _declared(self, buffer: Buffer) -> Buffer:
        self.buffers[buffer] = self.buffer(buffer)
        return self.buffers[buffer]

    def _for(self, n: Any) -> Stmt:
        extent = self.index(n.extent)
        body = self.statement(n.body)
        return tirx.For(
            n.loop_var, self.index(n.min), extent, n.kind, body, n.thread_binding, n.annotations, n.step
        )

    def _branch(self, n: Any) -> Stmt:
        otherwise = None if n.else_case is None else self.statement(n.else_case)
        return tirx.IfThenElse(self.value(n.condition), self.statement(n.then_case), otherwise)

    def _declaration(self, n: Any) -> Stmt:
        return tirx.DeclBuffer(self._declared(n.buffer), self.value(n.data))

    def _attribute(self, n: Any) -> Stmt:
        return tirx.AttrStmt(n.node, n.attr_key, self.index(n.value), self.statement(n.body))

    def _realize(self, n: Any) -> Stmt:
        block = self._block(n.block)
        return SBlockRealize([self.index(v) for v in n.iter_values], self.index(n.predicate), block)

    def _block(self, n: Any) -> Any:
        allocated = [self._declared(buffer) for buffer in n.alloc_buffers]
        matched = [
            MatchBufferRegion(self._declared(each.buffer), self.region(each.source))
            for each in n.match_buffers
        ]
        return SBlock(
            n.iter_vars,
            [self.region(each) for each in n.reads],
            [self.region(each) for each in n.writes],
            n.name_hint,
            self.statement(n.body),
            None if n.init is None else self.statement(n.init),
            allocated,
            matched,
            n.annotations,
        )
