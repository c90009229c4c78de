"""Attention, softmax(Q K^T + mask) V, tiled over the sequence with running maxima and sums: no N x N buffer.

The online softmax of Milakov and Gimelshein ("Online normalizer calculation for softmax", 2018) inside the
tiling of Dao et al. ("FlashAttention", 2022). Scores are computed transposed, keys down and queries across:
a vector's lanes are queries, so that neither the maximum nor the sum over keys crosses lanes, and K and V are
read in place as the broadcast operand, whatever their strides. Only Q is packed, once for all keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import te, tirx

from assay.compile.schedules.attention_problem import Access, Panels, Problem, Scratch
from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    as_int,
    bind,
    ceildiv,
    floordiv,
    floormod,
    i64,
    if_then,
    minimum,
    parallel,
    seq,
    simplify,
    substitute,
)
from assay.compile.schedules.online_softmax import emit_panels
from assay.compile.schedules.program import Axis, Builder, Views, flat_offset, make_analyzer
from assay.compile.schedules.reducer import reducer_of

__all__ = ["AttentionForm", "attention", "emit_attention"]

# The most keys that are scored before their values are summed: their scores stay in L1.
_KEY_BLOCK = 128
_MASKED_KEY_BLOCK = 32
# Vectors of a panel: with three, a tile of either product still has its accumulators in registers, and reads
# few operands for each multiply-add.
_MAX_VECTORS = 3
# Panels of queries that pass over a block of keys while it is in L2.
_MAX_PANELS = 4
# Tasks to share between threads, where there are that many.
_MIN_TASKS = 16

Indices = Callable[..., Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class AttentionForm:
    """Where attention finds its operands and leaves its result.

    ``lead``: batch and head extents; ``queries``, ``keys``, ``depth``, ``value_depth``: the other sizes.
    ``q``, ``k``, ``v``: the index of ``(*lead, row, column)`` in the operand's own buffer. ``scale``
    multiplies Q. ``order``: the result's axes, as positions in ``(*lead, query, column)``. ``zero_masked``: a
    row whose scores are all minus infinity is zero, not NaN.
    """

    lead: tuple[Any, ...]
    queries: Any
    keys: Any
    depth: int
    value_depth: int
    q: Indices
    k: Indices
    v: Indices
    scale: float
    order: tuple[int, ...]
    zero_masked: bool = False


def attention(q: Any, k: Any, v: Any, form: AttentionForm, modify: Callable[[Any], Any]) -> Any:
    """TE: softmax over keys of ``modify(scale Q K^T)`` (``[*lead, keys, queries]``: transposed), times V."""
    lead, over_depth = form.lead, te.reduce_axis((0, form.depth), "d")
    over_keys = [te.reduce_axis((0, form.keys), "t") for _ in range(3)]
    scale = tirx.const(form.scale, "float32")
    scores = te.compute(
        (*lead, form.keys, form.queries),
        lambda *i: te.sum(
            (q[tuple(form.q(*i[:-2], i[-1], over_depth))] * scale) * k[tuple(form.k(*i[:-1], over_depth))],
            axis=over_depth,
        ),
        name="scores",
        attrs={"assay.operations": 2 * form.depth + 1},  # Q is scaled once
    )
    modified = modify(scores)
    largest = te.compute(
        (*lead, form.queries),
        lambda *i: te.max(modified[(*i[:-1], over_keys[0], i[-1])], axis=over_keys[0]),
        name="largest",
    )
    powers = te.compute(
        (*lead, form.keys, form.queries),
        lambda *i: tirx.exp(modified[i] - largest[(*i[:-2], i[-1])]),
        name="powers",
    )
    total = te.compute(
        (*lead, form.queries),
        lambda *i: te.sum(powers[(*i[:-1], over_keys[1], i[-1])], axis=over_keys[1]),
        name="total",
    )

    def share(*i: Any) -> Any:
        whole = total[(*i[:-2], i[-1])]
        value = powers[i] / whole
        zero = tirx.const(0.0, "float32")
        return tirx.Select(whole > zero, value, zero) if form.zero_masked else value

    shares = te.compute((*lead, form.keys, form.queries), share, name="shares")
    sizes = (*lead, form.queries, form.value_depth)

    def result(*at: Any) -> Any:
        i = [at[form.order.index(axis)] for axis in range(len(sizes))]
        t = over_keys[2]
        return te.sum(shares[(*i[:-2], t, i[-2])] * v[tuple(form.v(*i[:-2], t, i[-1]))], axis=t)

    return te.compute(
        tuple(sizes[axis] for axis in form.order),
        result,
        name="attention",
        attrs={"assay.schedule": "attention", "assay.zero_masked": int(form.zero_masked)},
    )


def emit_attention(function: FusedFunction, anchor: Block, context: ScheduleContext) -> Stmt:
    """The whole function: tasks of (batch, head, chunk of queries), blocks of keys inside."""
    views = Views()
    body = _Emitter(function, anchor, views, context).emit()
    return seq(views.declarations(), body)


class _Emitter:
    def __init__(
        self, function: FusedFunction, anchor: Block, views: Views, context: ScheduleContext
    ) -> None:
        self.views, self.context = views, context
        self.scores, self.anchor = function.blocks[0], anchor
        pairs = list(zip(self.scores.spatial, self.scores.spatial_extents, strict=True))
        self.lead = [Axis(var=var, extent=extent) for var, extent in pairs[:-2]]
        self.keys, self.queries = self.scores.spatial_extents[-2:]
        self.key, self.query, self.column = (tirx.Var(name, "int64") for name in ("t", "s", "d"))
        self.analyzer = make_analyzer(
            [
                *self.lead,
                Axis(var=self.key, extent=i64(self.keys)),
                Axis(var=self.query, extent=i64(self.queries)),
            ]
        )
        self.mask = self._mask(function)
        self.problem = self._read(function)
        self._choose_tiles()

    def _read(self, function: FusedFunction) -> Problem:
        """Where the operands lie, and what happens to a score, from the blocks that define them."""
        scores, anchor = self.scores, self.anchor
        product, sum_ = reducer_of(scores), reducer_of(anchor)
        assert product is not None
        assert sum_ is not None
        lead = [axis.var for axis in self.lead]
        own = dict(zip(scores.spatial, (*lead, self.key, self.query), strict=True))
        own[scores.reduction[0]] = self.column
        (q,), (k,) = (list(loads_of(side)) for side in (product.operand.a, product.operand.b))
        share, v = sum_.operand.a, sum_.operand.b
        at = dict(zip((*share.indices[:-2], share.indices[-1]), (*lead, self.query), strict=True))
        at[anchor.reduction[0]] = self.key
        (column,) = (i for i in anchor.spatial if i not in at)
        at[column] = self.column
        width = anchor.spatial_extents[list(anchor.spatial).index(column)]
        score = tirx.Var("score", "float32")
        return Problem(
            keys=self.keys,
            queries=self.queries,
            depth=_constant(scores.reduction_extents[0]),
            value_depth=_constant(width),
            key=self.key,
            query=self.query,
            column=self.column,
            q=self._access(q, own),
            q_scale=_factor(product.operand.a),
            k=self._access(k, own),
            v=self._access(v, at),
            out=Access(
                buffer=self.views.of(anchor.output),
                offset=flat_offset(anchor.output, [substitute(i, at) for i in anchor.indices], self.analyzer),
            ),
            score=score,
            modification=self._modification(function, own, score),
            mask=self.mask,
            zero_masked=bool(as_int(anchor.annotations["assay.zero_masked"])),
            unit=self.context.unit,
            expected_keys=self.context.expected(self.keys),
            key_block=self._key_block(),
        )

    def _access(self, access: Expr, variables: Mapping[Expr, Expr]) -> Access:
        """The view that a load reads, and the position in it."""
        indices = [substitute(i, variables) for i in access.indices]
        offset = flat_offset(access.source, indices, self.analyzer)
        return Access(buffer=self.views.of(access.source), offset=offset)

    def _modification(self, function: FusedFunction, own: Mapping[Expr, Expr], score: Expr) -> Any:
        """The program between the product and the softmax: scaling, masks, whatever is elementwise."""
        scores = self.scores
        first = next(i for i, b in enumerate(function.blocks) if i > 0 and b.is_reduction)
        largest = function.blocks[first]
        reducer = reducer_of(largest)
        assert reducer is not None
        at = {var: own[old] for var, old in zip(largest.spatial[:-1], scores.spatial[:-2], strict=True)}
        at |= {largest.spatial[-1]: self.query, largest.reduction[0]: self.key}
        builder = Builder(self.analyzer, self.views, function.blocks[1:first])
        builder.values.append((scores.output, tuple(own[i] for i in scores.spatial), score))
        return builder.program(builder.value(reducer.operand, at))

    def _mask(self, function: FusedFunction) -> Access | None:
        """What the last step adds to the scores, where it is a tensor that tells queries apart."""
        scores = self.scores
        first = next(i for i, b in enumerate(function.blocks) if i > 0 and b.is_reduction)
        last = function.blocks[first - 1]
        if last is scores or not isinstance(last.value, tirx.Add):
            return None
        for operand in (last.value.a, last.value.b):
            if isinstance(operand, tvm.ir.TensorLoad) and function.is_param(operand.source):
                order = (*(axis.var for axis in self.lead), self.key, self.query)
                mask = self._access(operand, dict(zip(last.spatial, order, strict=True)))
                return mask if as_int(mask.step(self.query)) == 1 else None
        return None

    def _key_block(self) -> int:
        """Keys of one block: as even as can be; few where a mask may hide a whole block."""
        most = _KEY_BLOCK if self.mask is None else _MASKED_KEY_BLOCK
        expected = max(self.context.expected(self.keys), 1)
        blocks = -(-expected // most)
        return min(most, -(-expected // blocks // 8) * 8)

    def _choose_tiles(self) -> None:
        unit, expected = self.context.unit, self.context.expected
        self.width = unit.lanes() * min(_MAX_VECTORS, max(expected(self.queries) // unit.lanes(), 1))
        count = -(-expected(self.queries) // self.width)
        for axis in self.lead:
            count *= expected(axis.extent)
        self.panels = _MAX_PANELS
        while self.panels > 1 and count // self.panels < _MIN_TASKS:
            self.panels //= 2

    def emit(self) -> Stmt:
        """All tasks."""
        span = self.panels * self.width
        chunks = simplify(tirx.max(ceildiv(self.queries, span), i64(1)))
        tasks = chunks
        for axis in self.lead:
            tasks = tasks * i64(axis.extent)

        def task(t: Expr) -> Stmt:
            chunk, statements = bind("chunk", floormod(t, chunks))
            rest, more = bind("rest", floordiv(t, chunks))
            statements += more
            bound: dict[Expr, Expr] = {}
            for axis in reversed(self.lead):
                bound[axis.var], more = bind(str(axis.var.name), floormod(rest, axis.extent))
                rest, others = bind("rest", floordiv(rest, axis.extent))
                statements += [*more, *others]
            return seq(statements, self._chunk(bound, simplify(chunk * span), span))

        expected = self.context.expected
        work = expected(tasks) * span * expected(self.keys) * (self.problem.depth + self.problem.value_depth)
        return parallel(simplify(tasks), task, "task", serial=self.context.is_small(work // 4))

    def _chunk(self, bound: Mapping[Expr, Expr], start: Expr, span: int) -> Stmt:
        """The queries of one task: whole panels, then narrower ones that repeat the last query."""
        lanes = self.context.unit.lanes()
        count, statements = bind("count", minimum(i64(self.queries) - start, span))
        whole, more = bind("whole", floordiv(count, self.width))
        left, rest = bind("left", count - whole * self.width)
        scratch = Scratch.allocate(self.problem, self.panels, self.width)
        statements += [*more, *rest, *scratch.declarations]
        exact = as_int(floormod(self.queries, self.width)) == 0
        known = as_int(self.queries)
        if known is None or known >= self.width:
            panels = Panels(first=start, count=whole, width=self.width, clamped=False)
            body = emit_panels(self.problem, scratch, panels, bound)
            statements.append(body if exact else if_then(whole > 0, body))
        if not exact:
            narrow = Panels(
                first=start + whole * self.width,
                count=floordiv(left + (lanes - 1), lanes),
                width=lanes,
                clamped=True,
            )
            statements.append(if_then(left > 0, emit_panels(self.problem, scratch, narrow, bound)))
        return seq(statements)


def _constant(value: Expr) -> int:
    known = as_int(value)
    assert known is not None
    return known


def _factor(operand: Expr) -> float:
    """The number in ``load * number``; 1 for a load alone."""
    return float(operand.b.value) if isinstance(operand, tirx.Mul) else 1.0
