"""A function's bindings by variable: what defines each value, and what uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
from tvm import relax

from assay.compile.passes.constants import array_of

__all__ = ["Graph", "is_call", "scalar_of", "static_shape"]


def is_call(expr: Any, *names: str) -> bool:
    """Whether ``expr`` calls one of these operators, named without ``relax.``."""
    return (
        isinstance(expr, tvm.ir.Call)
        and isinstance(expr.op, tvm.ir.Op)
        and expr.op.name.removeprefix("relax.") in names
    )


def scalar_of(expr: Any) -> float | None:
    """The number behind a constant of one element, else None."""
    array = array_of(expr)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def static_shape(expr: Any) -> list[int | None] | None:
    """The extents of a tensor, None for each symbolic one; None where not even the rank is known."""
    shape = getattr(expr.ty, "shape", None)
    if shape is None:
        return None
    return [int(s.value) if isinstance(s, tvm.tirx.IntImm) else None for s in shape]


class Graph:
    """The definitions and users of a function's variables."""

    def __init__(self, function: Any) -> None:
        self.values: dict[Any, Any] = {}
        self._users: dict[Any, list[Any]] = {}
        self._kept: set[Any] = set()
        for block in function.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = binding.value
                for used in _variables(binding.value):
                    self._users.setdefault(used, []).append(binding.var)
                if not isinstance(binding.var, relax.DataflowVar):
                    self._kept.add(binding.var)
        self._kept.update(_variables(function.body.body))

    def value(self, expr: Any) -> Any:
        """What defines a variable; any other expression, and an input, is its own value."""
        return self.values.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def users(self, var: Any) -> list[Any]:
        """The variables whose definitions use ``var``."""
        return self._users.get(var, [])

    def is_output(self, var: Any) -> bool:
        """Whether the function gives ``var`` back."""
        return var in self._kept

    def only_user(self, var: Any) -> Any | None:
        """The one variable whose definition uses ``var``, where nothing else does and it is no output."""
        users = self.users(var)
        return users[0] if len(users) == 1 and var not in self._kept else None


def _variables(expr: Any) -> Iterator[Any]:
    """The variables in one binding's value, each once."""
    found: dict[Any, None] = {}

    def visit(node: Any) -> None:
        if isinstance(node, relax.Var):
            found[node] = None

    relax.analysis.post_order_visit(expr, visit)
    return iter(found)
