"""Running sums and the k largest elements on a GPU: one thread for each row, which it goes through in order.

TVM's parallel scan gives wrong sums where groups do not run in lockstep, and its sort needs a library. A row
a thread is right on every device; it is slow where rows are few and long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Range

from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    as_int,
    ceildiv,
    const_like,
    i64,
    if_then,
    load,
    loop,
    minimum,
    own_extents,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.running_sum import RUNNING_SUM
from assay.compile.schedules.top_k import TOP_K

__all__ = ["device_running_sum", "device_top_k", "to_device_rows"]

_THREADS = 64
# dlight leaves a function with this attribute as it is.
_SCHEDULED = "tirx.is_scheduled"


def to_device_rows(module: Any) -> Any:
    """``module`` with the device's forms in the place of the CPU's running sums and top-k kernels."""
    for variable, function in list(module.functions_items()):
        attributes = getattr(function, "attrs", None) or {}
        if RUNNING_SUM in attributes:
            module.update_func(variable, _running_sum_like(function, attributes[RUNNING_SUM]))
        elif TOP_K in attributes:
            module.update_func(variable, _top_k_like(function, attributes[TOP_K]))
    return module


def _running_sum_like(function: Any, choices: Any) -> Any:
    buffer = function.params[0]
    return device_running_sum(
        list(buffer.ty.shape),
        str(buffer.ty.dtype),
        int(choices["axis"]),
        exclusive=bool(int(choices["exclusive"])),
        reverse=bool(int(choices["reverse"])),
    )


def _top_k_like(function: Any, choices: Any) -> Any:
    buffer, k = function.params[0], as_int(function.params[1].ty.shape[-1])
    assert k is not None
    largest = bool(int(choices["largest"]))
    return device_top_k(list(buffer.ty.shape), str(buffer.ty.dtype), k, largest=largest)


def device_running_sum(shape: Any, dtype: str, axis: int, *, exclusive: bool, reverse: bool) -> Any:
    """A scheduled PrimFunc as ``running_sum_function`` describes it."""
    extents = own_extents(shape)
    x = tirx.decl_buffer(extents, dtype, name="x")
    y = tirx.decl_buffer(extents, dtype, name="y")
    steps = extents[axis]

    def row(others: list[Expr]) -> Stmt:
        total = tirx.decl_buffer([i64(1)], dtype, name="total", scope="local")

        def step(i: Expr) -> Stmt:
            at = [*others[:axis], steps - 1 - i if reverse else i, *others[axis:]]
            put = store(y, load(total, 0), *at)
            add = store(total, load(total, 0) + load(x, *at), 0)
            return seq(put, add) if exclusive else seq(add, put)

        return seq(tirx.AllocBuffer(total), store(total, const_like(0, dtype), 0), loop(steps, step, "step"))

    body = _row_a_thread([*extents[:axis], *extents[axis + 1 :]], row)
    return _marked(tirx.PrimFunc([x, y], body), "running_sum")


def device_top_k(shape: Any, dtype: str, k: int, *, largest: bool) -> Any:
    """A scheduled PrimFunc as ``top_k_function`` describes it: the best so far move up by insertion."""
    extents = own_extents(shape)
    x = tirx.decl_buffer(extents, dtype, name="x")
    values = tirx.decl_buffer([*extents[:-1], i64(k)], dtype, name="values")
    positions = tirx.decl_buffer([*extents[:-1], i64(k)], "int64", name="positions")

    def row(others: list[Expr]) -> Stmt:
        at = tirx.decl_buffer([i64(1)], "int32", name="at", scope="local")
        there = tirx.Cast("int64", load(at, 0))

        def precedes(a: Expr, b: Expr) -> Expr:
            return a > b if largest else a < b

        def consider(i: Expr) -> Stmt:
            value = load(x, *others, i)
            before = tirx.max(there - 1, i64(0))
            moves = tirx.And(load(at, 0) > 0, precedes(value, load(values, *others, before)))
            shift = seq(
                store(values, load(values, *others, before), *others, there),
                store(positions, load(positions, *others, before), *others, there),
                store(at, load(at, 0) - 1, 0),
            )
            insert = seq(
                store(at, tirx.Cast("int32", minimum(i, k - 1)), 0),
                tirx.While(moves, shift),
                store(values, value, *others, there),
                store(positions, i, *others, there),
            )
            return if_then(tirx.Or(i < k, precedes(value, load(values, *others, i64(k - 1)))), insert)

        return seq(tirx.AllocBuffer(at), loop(extents[-1], consider, "i"))

    body = _row_a_thread(extents[:-1], row)
    return _marked(tirx.PrimFunc([x, values, positions], body), "top_k")


def _row_a_thread(extents: list[Expr], row: Callable[[list[Expr]], Stmt]) -> Stmt:
    """``row`` of the indices of every row, each by a thread of its own."""
    rows = i64(1)
    for extent in extents:
        rows = simplify(rows * extent)
    group, thread = _axis("blockIdx.x", ceildiv(rows, _THREADS)), _axis("threadIdx.x", i64(_THREADS))
    number = group.var * _THREADS + thread.var
    indices: list[Expr] = []
    left = number
    for extent in reversed(extents):
        indices.insert(0, simplify(tirx.floormod(left, extent)))
        left = tirx.floordiv(left, extent)
    body = if_then(number < rows, row(indices))
    return _bound(group, _bound(thread, body))


def _axis(tag: str, extent: Expr) -> Any:
    var = tirx.Var(tag.replace(".", "_"), "int64")
    return tirx.IterVar(Range.from_min_extent(i64(0), extent), var, tirx.IterVar.ThreadIndex, tag)


def _bound(axis: Any, body: Stmt) -> Stmt:
    return tirx.For(axis.var, i64(0), axis.dom.extent, tirx.ForKind.THREAD_BINDING, body, axis)


def _marked(function: Any, name: str) -> Any:
    for key, value in (("global_symbol", name), ("tirx.noalias", True), (_SCHEDULED, True)):
        function = function.with_attr(key, value)
    return function
