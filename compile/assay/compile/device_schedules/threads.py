"""Loops over the groups and threads of a device, for kernels that are written as loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.ir import Range

from assay.compile.schedules.ir import Buffer, Expr, Stmt, as_int, i64, seq

__all__ = [
    "barrier",
    "hidden_count",
    "launch",
    "launch_grid",
    "launched_if",
    "local",
    "marked",
    "shared",
    "turns",
]


def launch(groups: Expr, threads: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
    """``body(group, thread)`` by every thread of every group: one kernel."""
    group, thread = _axis("blockIdx.x", groups), _axis("threadIdx.x", i64(threads))
    inner = body(group.var, thread.var)
    return _bound(group, _bound(thread, inner))


def launch_grid(grid: Sequence[Expr], threads: int, body: Callable[[Sequence[Expr], Expr], Stmt]) -> Stmt:
    """``body(group, thread)`` by every thread of a grid of groups in x, y and z: one kernel."""
    groups = [_axis(f"blockIdx.{axis}", extent) for axis, extent in zip("xyz", grid, strict=False)]
    thread = _axis("threadIdx.x", i64(threads))
    inner = _bound(thread, body([group.var for group in groups], thread.var))
    for group in reversed(groups):
        inner = _bound(group, inner)
    return inner


def _axis(tag: str, extent: Expr) -> Any:
    var = tirx.Var(tag.replace(".", "_"), "int64")
    return tirx.IterVar(Range.from_min_extent(i64(0), extent), var, tirx.IterVar.ThreadIndex, tag)


def _bound(axis: Any, body: Stmt) -> Stmt:
    return tirx.For(axis.var, i64(0), axis.dom.extent, tirx.ForKind.THREAD_BINDING, body, axis)


def launched_if(condition: Expr, kernel: Stmt) -> Stmt:
    """``kernel`` with an empty grid where ``condition``, of sizes, does not hold: it is not launched then."""
    axis = kernel.thread_binding
    extent = tirx.Select(condition, axis.dom.extent, i64(0))
    dom = Range.from_min_extent(i64(0), extent)
    fresh = tirx.IterVar(dom, axis.var, tirx.IterVar.ThreadIndex, axis.thread_tag)
    return _bound(fresh, kernel.body)


def barrier() -> Stmt:
    """All threads of the group wait for each other, and see what the others wrote to shared memory."""
    return tirx.Evaluate(tirx.call_intrin("int32", "tirx.tvm_storage_sync", "shared"))


def turns(count: Expr, lane: Expr, threads: int) -> Expr:
    """How many of ``count`` things a thread of a group has where all take turns."""
    return tirx.max(tirx.floordiv(count - lane + (threads - 1), i64(threads)), i64(0))


def hidden_count(count: Expr, kind: str) -> Expr:
    """``count`` of a loop; for AMD a constant one as a number that LLVM does not know.

    It would unroll the loop, and read what later turns need first, into more registers than there are.
    ``kind``: TVM's kind of target.
    """
    if kind != "rocm" or as_int(count) is None:
        return count
    shared_bytes = tirx.call_llvm_pure_intrin("int32", "llvm.amdgcn.groupstaticsize")
    return count + i64(tirx.shift_right(shared_bytes, tirx.const(31, "int32")))


def local(size: int, dtype: str, name: str) -> tuple[Buffer, Stmt]:
    """Memory of one thread."""
    return _allocated(size, dtype, name, "local")


def shared(size: int, dtype: str, name: str) -> tuple[Buffer, Stmt]:
    """Memory of one group."""
    return _allocated(size, dtype, name, "shared")


def _allocated(size: int, dtype: str, name: str, scope: str) -> tuple[Buffer, Stmt]:
    buffer = tirx.decl_buffer([i64(size)], dtype, name=name, scope=scope)
    return buffer, tirx.AllocBuffer(buffer)


def marked(parameters: list[Buffer], body: Stmt, name: str) -> Any:
    """A PrimFunc that is scheduled: dlight leaves it as it is."""
    function = tirx.PrimFunc(parameters, seq(body))
    for key, value in (("global_symbol", name), ("tirx.noalias", True), ("tirx.is_scheduled", True)):
        function = function.with_attr(key, value)
    return function
