"""Sums of all elements so far along an axis."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    allocate,
    as_int,
    const_like,
    flat_view,
    i64,
    if_then,
    load,
    loop,
    own_extents,
    parallel,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.math import with_registers
from assay.compile.schedules.nest import vector_pieces
from assay.compile.schedules.recurrent_kernel import SCHEDULED

__all__ = ["RUNNING_SUM", "running_sum_function"]

# The attribute that says what a kernel sums: its axis, whether exclusive, whether in reverse.
RUNNING_SUM = "assay.running_sum"

# Elements from which on rows are worth to be shared between threads.
_SHARED_ELEMENTS = 48_000
# LLVM splits vectors that are too long for the target.
_LANES = 8


def running_sum_function(shape: Any, dtype: str, axis: int, *, exclusive: bool, reverse: bool) -> Any:
    """A PrimFunc from ``shape`` to the same: along the innermost axis one by one, along others in vectors.

    ``exclusive``: an element is not in its own sum. ``reverse``: sums start at the last one. Symbolic
    dimensions may be anywhere.
    """
    extents = own_extents(shape)
    x = tirx.decl_buffer(extents, dtype, name="x")
    y = tirx.decl_buffer(extents, dtype, name="y")
    (source, one), (target, two) = flat_view(x), flat_view(y)
    steps = extents[axis]
    outer, inner = _product(extents[:axis]), _product(extents[axis + 1 :])
    zero = const_like(0, dtype)

    def place(row: Expr, step: Expr) -> Expr:
        return (row * steps + (steps - 1 - step if reverse else step)) * inner

    def along(row: Expr) -> Stmt:
        """A row whose elements are neighbours: the sum stays in a register."""
        total, declaration = allocate([1], dtype, "total", "local")

        def step(i: Expr) -> Stmt:
            put = store(target, load(total, 0), place(row, i))
            add = store(total, load(total, 0) + load(source, place(row, i)), 0)
            return seq(put, add) if exclusive else seq(add, put)

        return seq(declaration, store(total, zero, 0), loop(steps, step, "step"))

    def across(row: Expr) -> Stmt:
        """Rows of neighbours: each is the sum of the one before and of new elements."""

        def add(i: Expr) -> Stmt:
            before, own = place(row, i - 1), place(row, i)
            fresh = before if exclusive else own

            def element(j: Expr) -> Stmt:
                return store(target, load(target, before + j) + load(source, fresh + j), own + j)

            return _over(inner, element)

        def first(j: Expr) -> Stmt:
            at = place(row, i64(0)) + j
            return store(target, zero if exclusive else load(source, at), at)

        every = seq(_over(inner, first), loop(steps - 1, lambda i: add(i + 1), "step"))
        # A symbolic size may be zero.
        return if_then(steps > 0, every)

    known = as_int(outer * steps * inner)
    serial = known is None or known < _SHARED_ELEMENTS
    rows = parallel(outer, along if as_int(inner) == 1 else across, "row", serial=serial)
    function = tirx.PrimFunc([x, y], seq(one, two, rows))
    for key, value in (("global_symbol", "running_sum"), ("tirx.noalias", True), (SCHEDULED, True)):
        function = function.with_attr(key, value)
    choices = {"axis": axis, "exclusive": int(exclusive), "reverse": int(reverse)}
    return function.with_attr(RUNNING_SUM, choices)


def _over(extent: Expr, element: Any) -> Stmt:
    return vector_pieces(
        extent,
        _LANES,
        lambda start, count, _: with_registers(count, lambda lane, registers: element(start + lane)),
        unroll=4,
    )


def _product(extents: list[Expr]) -> Expr:
    size = i64(1)
    for extent in extents:
        size = size * extent
    return simplify(size)
