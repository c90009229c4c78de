"""What a kernel of attention on a device is told: sizes, how elements are read, what happens to scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvm import tirx

from assay.compile.device_schedules.threads import launch, local
from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    as_int,
    bind,
    ceildiv,
    const_like,
    floordiv,
    floormod,
    i64,
    load,
    minimum,
    seq,
    simplify,
    store,
    substitute,
)
from assay.compile.schedules.reducer import reducer_of

__all__ = ["DeviceAttention", "least", "read_attention"]

_LEAST_BITS = 0xFF7FFFFF

Read = Callable[[Sequence[Expr], Expr, Expr], Expr]


@dataclass(frozen=True, kw_only=True)
class DeviceAttention:
    """softmax over keys of ``modify(scale Q K^T)``, times V, for every index below ``lead``.

    ``q(lead, query, column)``, ``k(lead, key, column)`` and ``v(lead, key, column)`` are elements, in
    float32; ``put(lead, query, column, value)`` stores one of the result. ``modify(lead, key, query,
    score)``: statements, and the score that they give; None where scores stay. ``zero_masked``: a row
    whose scores are all minus infinity is zero, not NaN.
    """

    lead: tuple[Expr, ...]
    queries: Expr
    keys: Expr
    depth: int
    value_depth: int
    q: Read
    k: Read
    v: Read
    put: Callable[[Sequence[Expr], Expr, Expr, Expr], Stmt]
    scale: Expr | None
    modify: Callable[[Sequence[Expr], Expr, Expr, Expr], tuple[list[Stmt], Expr]] | None
    zero_masked: bool

    def launch(self, size: int, threads: int, body: Callable[[Sequence[Expr], Expr, Expr], Stmt]) -> Stmt:
        """``body(lead, first, lane)`` by groups of ``threads``, for ``size`` queries from ``first`` each."""
        groups = ceildiv(self.queries, size)
        # TVM's simplifier divides by a number of groups that it takes for 0 where the queries are symbolic.
        divisor = groups if as_int(groups) is not None else tirx.max(groups, i64(1))
        count = groups
        for extent in self.lead:
            count = count * i64(extent)

        def thread(group: Expr, lane: Expr) -> Stmt:
            first, statements = bind("first", floormod(group, divisor) * size)
            lead: list[Expr] = []
            left = floordiv(group, divisor)
            for extent in reversed(self.lead):
                place, more = bind("place", floormod(left, extent))
                lead.insert(0, place)
                statements += more
                left = floordiv(left, extent)
            return seq(statements, body(lead, first, lane))

        return launch(simplify(count), threads, thread)

    def a_query(self, query: Expr, size: int) -> Expr:
        """``query``, or the last one where it is behind that; groups have ``size`` queries."""
        inside = (as_int(self.queries) or 1) % size == 0
        return query if inside else minimum(query, i64(self.queries) - 1)

    def a_key(self, key: Expr, size: int) -> Expr:
        """``key``, or the last one where it is behind that; blocks have ``size`` keys."""
        inside = (as_int(self.keys) or 1) % size == 0
        return key if inside else minimum(key, i64(self.keys) - 1)

    def keys_from(self, start: Expr, size: int) -> tuple[Expr, list[Stmt]]:
        """How many of ``size`` keys from ``start`` on there are, and statements that compute it.

        By way of memory where it is symbolic: TVM makes memory as small as what loops are seen to reach, and
        would give it a symbolic size, which kernels do not have.
        """
        if (as_int(self.keys) or 1) % size == 0:
            return i64(size), []
        count = minimum(i64(self.keys) - start, size)
        if as_int(self.keys) is not None:
            return bind("count", count)
        kept, declaration = local(1, "int32", "kept")
        var = tirx.Var("count", "int64")
        kept_count = store(kept, tirx.Cast("int32", count), 0)
        return var, [declaration, kept_count, tirx.Bind(var, i64(load(kept, 0)))]

    def divided(self, value: Expr, total: Expr) -> Expr:
        """An element of the result from its sum, and the sum of the powers."""
        zero = const_like(0.0, "float32")
        return tirx.Select(total > zero, value / total, zero) if self.zero_masked else value / total


def least() -> Expr:
    """The least number of float32, the largest score of no keys: masks may make all scores of a row this.

    By its bits: TVM writes seven digits of a number, which give a larger one.
    """
    return tirx.reinterpret("float32", tirx.const(_LEAST_BITS, "uint32"))


def read_attention(function: FusedFunction, anchor: Block) -> DeviceAttention:
    """The attention of a function that ``schedules.attention`` made."""
    scores = function.blocks[0]
    product, sum_ = reducer_of(scores), reducer_of(anchor)
    assert product is not None
    assert sum_ is not None
    key, query = scores.spatial[-2:]
    (q,), (k,) = (list(loads_of(side)) for side in (product.operand.a, product.operand.b))
    share, v = sum_.operand.a, sum_.operand.b
    (column,) = scores.reduction

    def of_scores(lead: Sequence[Expr], row: Expr, at: Expr, place: Expr) -> dict[Expr, Expr]:
        return {**dict(zip(scores.spatial, lead, strict=False)), place: row, column: at}

    places = (*share.indices[:-2], share.indices[-1])
    (element,) = (each for each in anchor.spatial if not any(each.same_as(place) for place in places))

    def of_result(lead: Sequence[Expr], row: Expr, at: Expr, place: Expr) -> dict[Expr, Expr]:
        return {**dict(zip(places, lead, strict=False)), place: row, element: at}

    def put(lead: Sequence[Expr], row: Expr, at: Expr, value: Expr) -> Stmt:
        variables = of_result(lead, row, at, places[-1])
        return store(anchor.output, value, *(substitute(index, variables) for index in anchor.indices))

    width = anchor.spatial_extents[list(anchor.spatial).index(element)]
    return DeviceAttention(
        lead=scores.spatial_extents[:-2],
        queries=scores.spatial_extents[-1],
        keys=scores.spatial_extents[-2],
        depth=_constant(scores.reduction_extents[0]),
        value_depth=_constant(width),
        q=lambda lead, row, at: substitute(q, of_scores(lead, row, at, query)),
        k=lambda lead, row, at: substitute(k, of_scores(lead, row, at, key)),
        v=lambda lead, row, at: substitute(v, of_result(lead, row, at, anchor.reduction[0])),
        put=put,
        scale=_factor(product.operand.a),
        modify=_modification(function),
        zero_masked=bool(as_int(anchor.annotations["assay.zero_masked"])),
    )


def _modification(
    function: FusedFunction,
) -> Callable[[Sequence[Expr], Expr, Expr, Expr], tuple[list[Stmt], Expr]] | None:
    """What the blocks between the product and the softmax do to a score; None where there are none."""
    first = next(i for i, block in enumerate(function.blocks) if i > 0 and block.is_reduction)
    steps = function.blocks[1:first]
    if not steps:
        return None

    def modify(lead: Sequence[Expr], key: Expr, query: Expr, score: Expr) -> tuple[list[Stmt], Expr]:
        statements: list[Stmt] = []
        values = [(function.blocks[0].output, score)]

        def replace(node: Expr) -> Expr | None:
            return next((value for buffer, value in values if node.source.same_as(buffer)), None)

        for block in steps:
            variables: Mapping[Expr, Expr] = dict(zip(block.spatial, (*lead, key, query), strict=True))
            value, bound = bind("score", substitute(block.value, variables, replace))
            statements += bound
            values.append((block.output, value))
        return statements, values[-1][1]

    return modify


def _constant(value: Expr) -> int:
    known = as_int(value)
    assert known is not None
    return known


def _factor(operand: Expr) -> Expr | None:
    """The number in ``load * number``; None for a load alone."""
    return operand.b if isinstance(operand, tirx.Mul) else None
