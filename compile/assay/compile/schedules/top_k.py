"""The k largest or smallest elements of each row, in order: an insertion into a sorted list of k.

Most elements of a long row are smaller than the least one in the list, so that they cost one comparison.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    flat_view,
    i64,
    if_then,
    load,
    loop,
    minimum,
    own_extents,
    parallel,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.recurrent_kernel import SCHEDULED

__all__ = ["TOP_K", "top_k_function"]

# The attribute that says whether a kernel takes the largest elements, or the smallest.
TOP_K = "assay.top_k"

# Elements from which on rows are worth to be shared between threads: each is a load and a comparison.
_SHARED_ELEMENTS = 48_000


def top_k_function(shape: Any, dtype: str, k: int, *, largest: bool) -> Any:
    """A PrimFunc from ``[..., N]`` to values ``[..., k]`` and positions (int64) ``[..., k]``.

    Of equal elements the first comes first. ``k`` is at most N; symbolic dimensions may lead.
    """
    extents = own_extents(shape)
    columns = extents[-1]
    x = tirx.decl_buffer(extents, dtype, name="x")
    values = tirx.decl_buffer([*extents[:-1], i64(k)], dtype, name="values")
    positions = tirx.decl_buffer([*extents[:-1], i64(k)], "int64", name="positions")
    (source, one), (best, two), (places, three) = flat_view(x), flat_view(values), flat_view(positions)
    rows = i64(1)
    for extent in extents[:-1]:
        rows = simplify(rows * extent)

    def precedes(a: Expr, b: Expr) -> Expr:
        return a > b if largest else a < b

    def row(r: Expr) -> Stmt:
        at, declaration = allocate([1], "int64", "at", "local")
        return seq(declaration, loop(columns, lambda i: _consider(r, i, at), "i"))

    def _consider(r: Expr, i: Expr, at: Buffer) -> Stmt:
        value = load(source, r * columns + i)
        there = load(at, 0)
        before = load(best, r * k + there - 1)
        shift = seq(
            store(best, before, r * k + there),
            store(places, load(places, r * k + there - 1), r * k + there),
            store(at, there - 1, 0),
        )
        # The bound is looked at first: the list has no element before its first.
        insert = seq(
            store(at, minimum(i, k - 1), 0),
            tirx.While(
                tirx.And(there > 0, precedes(value, load(best, r * k + tirx.max(there - 1, i64(0))))), shift
            ),
            store(best, value, r * k + there),
            store(places, i, r * k + there),
        )
        worst = load(best, r * k + (k - 1))
        return if_then(i < k, insert, if_then(precedes(value, worst), insert))

    known = as_int(rows * columns)
    serial = known is None or known < _SHARED_ELEMENTS
    body = seq(one, two, three, parallel(rows, row, "row", serial=serial))
    function = tirx.PrimFunc([x, values, positions], body)
    for key, value in (("global_symbol", "top_k"), ("tirx.noalias", True), (SCHEDULED, True)):
        function = function.with_attr(key, value)
    return function.with_attr(TOP_K, {"largest": int(largest)})
