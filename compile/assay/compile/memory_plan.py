"""How much memory a run needs for intermediate results, as planned when the model is compiled.

The plan is TVM's (StaticPlanBlockMemory): values that do not live at the same time share storage, and a value
whose shape is symbolic gets room for its largest size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tvm
from tvm import relax, tirx

from assay.compile.schedules.ir import Expr, Stmt, as_int, simplify, substitute, walk
from assay.runtime.manifest import Workspace

__all__ = ["kernel_bytes", "plan_workspace", "planned_bytes", "planning_passes", "with_upper_bounds"]


def with_upper_bounds(module: Any, bounds: Mapping[str, int]) -> Any:
    """``module`` whose plan has room for symbolic dimensions up to ``bounds``."""
    if not bounds:
        return module
    limits = {name: tirx.IntImm("int64", value) for name, value in bounds.items()}
    bounded = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
    bounded.update_func(
        bounded.get_global_var("main"), module["main"].with_attr("tir_var_upper_bound", limits)
    )
    return bounded


def planning_passes() -> list[Any]:
    """The passes from kernels called on values to kernels called on planned storage."""
    transform = relax.transform
    return [
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
    ]


def plan_workspace(module: Any, defaults: Mapping[str, int], maxima: Mapping[str, int]) -> Workspace:
    """What a run of a scheduled module needs at the default and at the maximum sizes."""
    default = planned_bytes(module, defaults)
    maximum = default if maxima == defaults else planned_bytes(module, maxima)
    return Workspace(default_bytes=default, maximum_bytes=maximum)


def planned_bytes(module: Any, sizes: Mapping[str, int]) -> int:
    """Bytes of all storage for intermediate results, and of the largest kernel's own, at ``sizes``."""
    planned = tvm.transform.Sequential(planning_passes())(with_upper_bounds(module, sizes))
    total = 0

    def visit(expr: Any) -> None:
        nonlocal total
        is_operator = isinstance(expr, tvm.ir.Call) and isinstance(expr.op, tvm.ir.Op)
        if is_operator and expr.op.name == "relax.memory.alloc_storage":
            total += _at(expr.args[0].values[0], sizes)

    relax.analysis.post_order_visit(planned["main"], visit)
    kernels = [f for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    return total + max((kernel_bytes(function, sizes) for function in kernels), default=0)


def kernel_bytes(function: Expr, sizes: Mapping[str, int]) -> int:
    """Bytes that a scheduled kernel allocates beyond the stack, once for each place where it does."""
    total = 0
    for buffer in _allocations(function.body):
        size = int("".join(c for c in str(buffer.ty.dtype) if c.isdigit()) or 8) // 8
        for extent in buffer.ty.shape:
            size *= _at(extent, sizes)
        # Smaller ones are on the stack.
        total += size if size >= _STACK_BYTES else 0
    return total


# tvm::runtime::kMaxStackAlloca.
_STACK_BYTES = 1024


def _at(value: int | Expr, sizes: Mapping[str, int]) -> int:
    """A size at the given sizes of the symbolic dimensions; what is not known counts nothing."""
    known = as_int(value)
    if known is None:
        symbols = {node for node in walk(value) if isinstance(node, tirx.Var)}
        bound = {s: tirx.IntImm(s.ty.dtype, sizes[s.name]) for s in symbols if s.name in sizes}
        known = as_int(simplify(substitute(value, bound)))
    return known or 0


def _allocations(statement: Stmt) -> Iterator[Any]:
    if isinstance(statement, tirx.AllocBuffer):
        yield statement.buffer
    for name in ("seq", "body", "then_case", "else_case"):
        inner = getattr(statement, name, None)
        if inner is None:
            continue
        for part in inner if name == "seq" else [inner]:
            yield from _allocations(part)
