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


from tvm import te, tirx

from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    broadcast,
    ceildiv,
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    minimum,
    parallel,
    seq,
    simplify,
    store,
    substitute,
)
from assay.compile.schedules.math import Registers, vector_math, with_registers
from assay.compile.schedules.nest import stride
from assay.compile.schedules.program import Axis, Builder, Views, emit_program, flat_offset, make_analyzer
from assay.compile.schedules.reducer import reducer_of
from assay.compile.schedules.tiles import choose_panel_width, choose_tile

__all__ = ["AttentionForm", "attention", "emit_attention"]

# Keys that are scored before their values are summed: their scores stay in L1.
_KEY_BLOCK = 96
# Panels of queries that pass over a block of keys while it is in L2.
_MAX_PANELS = 4
# Tasks to share between threads, where there are that many.
_MIN_TASKS = 16

Indices = Callable[..., Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class AttentionForm:
    """Where attention finds its operands and leaves its result.

    ``lead``: batch and head extents; ``queries``, ``keys``, ``depth``, ``value_depth``: the other sizes. ``q``,
    ``k``, ``v``: the index of ``(*lead, row, column)`` in the operand's own buffer. ``scale`` multiplies Q.
    ``order``: the result's axes, as positions in ``(*lead, query, column)``. ``keep_masked``: a row whose
    scores are all minus infinity is zero, not NaN.
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
    keep_masked: bool = False


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
        return tirx.Select(whole > zero, value, zero) if form.keep_masked else value

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
        attrs={"assay.schedule": "attention", "assay.keep_masked": int(form.keep_masked)},
    )


def emit_attention(function: FusedFunction, anchor: Block, context: ScheduleContext) -> Stmt:
    """The whole function: tasks of (batch, head, chunk of queries), blocks of keys inside."""
    views = Views()
    body = _Emitter(function, anchor, views, context).emit()
    return seq(views.declarations(), body)


@dataclass(frozen=True, kw_only=True)
class _Panels:
    """Panels of queries with the same treatment: ``count`` of ``width`` from ``first``; ``clamped``: the last
    one may reach beyond the last query, which is then computed several times."""

    first: Expr
    count: Expr
    width: int
    clamped: bool


@dataclass(frozen=True, kw_only=True)
class _Scratch:
    """What a task keeps for each of its panels, and the scores of one block of keys."""

    queries: Buffer
    sums: Buffer
    peaks: Buffer
    totals: Buffer
    scores: Buffer
    declarations: tuple[Stmt, ...]


class _Emitter:
    def __init__(
        self, function: FusedFunction, anchor: Block, views: Views, context: ScheduleContext
    ) -> None:
        scores = function.blocks[0]
        product, shares = (reducer_of(block) for block in (scores, anchor))
        assert product is not None and shares is not None
        self.anchor, self.views, self.context = anchor, views, context
        self.keep_masked = bool(as_int(anchor.annotations["assay.keep_masked"]))  # type: ignore[arg-type]
        self.keys, self.queries = scores.spatial_extents[-2:]
        self.lead = [Axis(var=var, extent=e) for var, e in self._pairs(scores)[:-2]]
        self.key, self.query, self.column = (tirx.Var(n, "int64") for n in ("t", "s", "d"))
        axes = {a.var: a.var for a in self.lead}
        own = {**axes, scores.spatial[-2]: self.key, scores.spatial[-1]: self.query}
        own[scores.reduction[0]] = self.column
        self.q = substitute(product.operand.a, own)
        self.k = self._flat(product.operand.b, own)
        (value,) = [a for a in loads_of(shares.operand) if not a.source.same_as(function.blocks[-2].output)]
        (share,) = [a for a in loads_of(shares.operand) if a.source.same_as(function.blocks[-2].output)]
        at = dict(zip((*share.indices[:-2], share.indices[-1]), (*axes.values(), self.query), strict=True))
        at[anchor.reduction[0]] = self.key
        (column,) = (i for i in anchor.spatial if i not in at)
        at[column] = self.column
        self.v = self._flat(value, at)
        self.out = flat_offset(anchor.output, [substitute(i, at) for i in anchor.indices], self._analyzer())
        self.depth = _constant(scores.reduction_extents[0])
        self.value_depth = _constant(anchor.spatial_extents[list(anchor.spatial).index(column)])
        self._read_modification(function, own)
        self._choose_tiles()

    @staticmethod
    def _pairs(block: Block) -> list[tuple[Expr, Expr]]:
        return list(zip(block.spatial, block.spatial_extents, strict=True))

    def _analyzer(self) -> Any:
        return make_analyzer(
            [
                *self.lead,
                Axis(var=self.key, extent=i64(self.keys)),
                Axis(var=self.query, extent=i64(self.queries)),
            ]
        )

    def _flat(self, access: Expr, variables: Mapping[Expr, Expr]) -> tuple[Buffer, Expr]:
        """The view that a load reads, and the position in it."""
        indices = [substitute(i, variables) for i in access.indices]
        return self.views.of(access.source), flat_offset(access.source, indices, self._analyzer())

    def _read_modification(self, function: FusedFunction, own: Mapping[Expr, Expr]) -> None:
        """The program between the product and the softmax: scaling, masks, whatever is elementwise."""
        scores = function.blocks[0]
        first = next(i for i, b in enumerate(function.blocks) if i > 0 and b.is_reduction)
        largest = function.blocks[first]
        reducer = reducer_of(largest)
        assert reducer is not None
        at = {var: own[old] for var, old in zip(largest.spatial[:-1], scores.spatial[:-2], strict=True)}
        at |= {largest.spatial[-1]: self.query, largest.reduction[0]: self.key}
        self.score = tirx.Var("score", "float32")
        builder = Builder(self._analyzer(), self.views, function.blocks[1:first])
        builder.values.append((scores.output, tuple(own[i] for i in scores.spatial), self.score))
        self.modification = builder.program(builder.value(reducer.operand, at))

    def _choose_tiles(self) -> None:
        unit, expected = self.context.unit, self.context.expected
        self.lanes = unit.lanes()
        self.width = choose_panel_width(unit, expected(self.keys), max(expected(self.queries), self.lanes))
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
        work = expected(tasks) * span * expected(self.keys) * (self.depth + self.value_depth)
        return parallel(simplify(tasks), task, "task", serial=self.context.is_small(work // 4))

    def _chunk(self, bound: Mapping[Expr, Expr], start: Expr, span: int) -> Stmt:
        """The queries of one task: whole panels, then narrower ones that repeat the last query."""
        count, statements = bind("count", minimum(i64(self.queries) - start, span))
        whole, more = bind("whole", floordiv(count, self.width))
        left, rest = bind("left", count - whole * self.width)
        scratch = self._scratch()
        statements += [*more, *rest, *scratch.declarations]
        exact = as_int(floormod(self.queries, self.width)) == 0
        some = as_int(self.queries)
        if some is None or some >= self.width:
            panels = _Panels(first=start, count=whole, width=self.width, clamped=False)
            body = _Pass(self, scratch, panels, bound).emit()
            statements.append(body if exact else if_then(whole > 0, body))
        if not exact:
            narrow = _Panels(
                first=start + whole * self.width,
                count=floordiv(left + (self.lanes - 1), self.lanes),
                width=self.lanes,
                clamped=True,
            )
            statements.append(if_then(left > 0, _Pass(self, scratch, narrow, bound).emit()))
        return seq(statements)

    def _scratch(self) -> _Scratch:
        columns = self.panels * self.width
        sizes = {
            "queries": columns * self.depth,
            "sums": columns * self.value_depth,
            "peaks": columns,
            "totals": columns,
            "scores": _KEY_BLOCK * self.width,
        }
        made = {name: allocate([size], "float32", name) for name, size in sizes.items()}
        return _Scratch(
            **{name: buffer for name, (buffer, _) in made.items()},
            declarations=tuple(declaration for _, declaration in made.values()),
        )


class _Pass:
    """The loops over blocks of keys for some panels of queries."""

    def __init__(
        self, owner: _Emitter, scratch: _Scratch, panels: _Panels, bound: Mapping[Expr, Expr]
    ) -> None:
        self.o, self.scratch, self.panels, self.bound = owner, scratch, panels, dict(bound)
        self.lanes, self.width = owner.lanes, panels.width
        self.vectors = range(0, self.width, self.lanes)

    def emit(self) -> Stmt:
        keys = i64(self.o.keys)
        blocks = ceildiv(keys, _KEY_BLOCK)

        def block(b: Expr) -> Stmt:
            start, statements = bind("keys_start", b * _KEY_BLOCK)
            count, more = bind("keys_count", minimum(keys - start, _KEY_BLOCK))
            panels = loop(self.panels.count, lambda p: self._panel(p, start, count), "panel")
            return seq(statements, more, panels)

        return seq(
            loop(self.panels.count, self._begin, "panel"),
            loop(blocks, block, "key_block"),
            loop(self.panels.count, self._end, "panel"),
        )

    def _query(self, panel: Expr, lane: Expr) -> Expr:
        at = self.panels.first + panel * self.width + lane
        return tirx.min(at, i64(self.o.queries) - 1) if self.panels.clamped else at

    def _begin(self, panel: Expr) -> Stmt:
        """Pack a panel of Q as ``[depth, width]``; nothing summed yet."""
        s, o = self.scratch, self.o

        def pack(d: Expr) -> Stmt:
            def element(lane: Expr) -> Stmt:
                at = {**self.bound, o.query: self._query(panel, lane), o.column: d}
                value = substitute(o.q, at, lambda a: load(*o._flat(a, {})))
                return store(s.queries, value, (panel * o.depth + d) * self.width + lane)

            return loop(self.width, element, "query")

        zero = broadcast(const_like(0.0, "float32"), self.lanes)
        lowest = broadcast(const_like(float("-inf"), "float32"), self.lanes)
        starts = []
        for j in self.vectors:
            at = lanes_at(panel * self.width + j, self.lanes)
            starts += [store(s.peaks, lowest, at), store(s.totals, zero, at)]
        clear = loop(
            o.value_depth,
            lambda d: seq(
                *(
                    store(s.sums, zero, lanes_at((panel * o.value_depth + d) * self.width + j, self.lanes))
                    for j in self.vectors
                )
            ),
            "column",
        )
        return seq(loop(o.depth, pack, "column"), starts, clear)

    def _panel(self, panel: Expr, start: Expr, count: Expr) -> Stmt:
        """One block of keys for one panel: scores, powers and their sum, weighted values."""
        o, s = self.o, self.scratch
        peak, declaration = allocate([self.width], "float32", "peak", "local")
        factor, more = allocate([self.width], "float32", "factor", "local")
        total, last = allocate([self.width], "float32", "total", "local")
        statements: list[Stmt] = [declaration, more, last]
        base, binding = bind("panel_start", panel * self.width)
        statements += binding
        for j in self.vectors:
            at = lanes_at(base + j, self.lanes)
            statements.append(store(peak, load(s.peaks, at), lanes_at(j, self.lanes)))
        rows = choose_tile(o.context.unit, o.context.expected(o.keys), self.width, o.depth).rows
        statements.append(
            _row_tiles(count, rows, lambda row, height: self._scores(panel, start, row, height, peak))
        )
        for j in self.vectors:
            statements.append(self._rescale(base, j, peak, factor, total))

        def power(t: Expr) -> Stmt:
            def element(lane: Expr, registers: Registers, j: int) -> Stmt:
                at = t * self.width + j + lane
                value, what = _evaluate(tirx.exp(load(s.scores, at) - load(peak, j + lane)), registers)
                return seq(
                    what,
                    store(s.scores, value, at),
                    store(total, load(total, j + lane) + value, j + lane),
                )

            return seq(
                *(
                    with_registers(self.lanes, lambda lane, r, j=j: element(lane, r, j))  # type: ignore[misc]
                    for j in self.vectors
                )
            )

        statements.append(loop(count, power, "key"))
        for j in self.vectors:
            at = lanes_at(base + j, self.lanes)
            statements.append(store(s.totals, load(total, lanes_at(j, self.lanes)), at))
        height = choose_tile(o.context.unit, o.value_depth, self.width, None).rows
        full, left = divmod(o.value_depth, height)
        if full:
            statements.append(
                loop(full, lambda d: self._weigh(panel, start, count, d * height, height, factor), "columns")
            )
        if left:
            statements.append(self._weigh(panel, start, count, i64(full * height), left, factor))
        return seq(statements)

    def _scores(self, panel: Expr, start: Expr, row: Expr, height: int, peak: Buffer) -> Stmt:
        """``height`` keys' scores for the panel, modified, and the largest so far."""
        o, s = self.o, self.scratch
        k, offset = o.k
        step = stride(offset, o.column, o._analyzer())
        statements, places = [], []
        for i in range(height):
            place, more = bind(
                f"key{i}", substitute(offset, {**self.bound, o.key: start + row + i, o.column: i64(0)})
            )
            statements += more
            places.append(place)
        base, more = bind("packed", panel * (o.depth * self.width))
        statements += more

        def operands(d: Expr) -> tuple[list[Expr], list[Expr]]:
            a = [load(k, place + d * step) for place in places]
            b = [load(s.queries, lanes_at(base + d * self.width + j, self.lanes)) for j in self.vectors]
            return a, b

        accumulators, tile = _tile(height, self.width, self.lanes, o.depth, operands)
        statements += tile
        for i, accumulator in enumerate(accumulators):
            for j in self.vectors:

                def element(
                    lane: Expr,
                    registers: Registers,
                    i: int = i,
                    j: int = j,
                    accumulator: Buffer = accumulator,
                ) -> Stmt:
                    variables = {
                        **self.bound,
                        o.key: start + row + i,
                        o.query: self._query(panel, j + lane),
                        o.score: load(accumulator, j + lane),
                    }
                    what, (value,) = emit_program(o.modification, variables, registers)
                    value = registers.keep(value, what)
                    at = (row + i) * self.width + j + lane
                    largest = tirx.max(load(peak, j + lane), value)
                    return seq(what, store(s.scores, value, at), store(peak, largest, j + lane))

                statements.append(with_registers(self.lanes, element))
        return seq(statements)

    def _rescale(self, base: Expr, j: int, peak: Buffer, factor: Buffer, total: Buffer) -> Stmt:
        """What the sums so far are worth under the new maximum; a maximum to subtract that is finite."""
        s = self.scratch

        def element(lane: Expr, registers: Registers) -> Stmt:
            at, own = base + j + lane, j + lane
            statements: list[Stmt] = []
            new = registers.keep(load(peak, own), statements)
            lowest = const_like(float("-inf"), "float32")
            # Where nothing counts yet, 0: the difference of two infinities is no number.
            finite = registers.keep(tirx.Select(new > lowest, new, const_like(0.0, "float32")), statements)
            value, more = _evaluate(tirx.exp(load(s.peaks, at) - finite), registers)
            statements += more
            worth = registers.keep(value, statements)
            return seq(
                statements,
                store(factor, worth, own),
                store(total, load(s.totals, at) * worth, own),
                store(s.peaks, new, at),
                store(peak, finite, own),
            )

        return with_registers(self.lanes, element)

    def _weigh(
        self, panel: Expr, start: Expr, count: Expr, column: Expr, height: int, factor: Buffer
    ) -> Stmt:
        """``height`` columns of V, summed over the block of keys with the powers as weights."""
        o, s = self.o, self.scratch
        v, offset = o.v
        analyzer = o._analyzer()
        row, across = stride(offset, o.key, analyzer), stride(offset, o.column, analyzer)
        place, statements = bind("values", substitute(offset, {**self.bound, o.key: start, o.column: column}))
        base, more = bind("sums_start", (panel * o.value_depth + column) * self.width)
        statements += more

        def operands(t: Expr) -> tuple[list[Expr], list[Expr]]:
            a = [load(v, place + t * row + i * across) for i in range(height)]
            b = [load(s.scores, lanes_at(t * self.width + j, self.lanes)) for j in self.vectors]
            return a, b

        def begin(i: int, j: int) -> Expr:
            old = load(s.sums, lanes_at(base + i * self.width + j, self.lanes))
            return old * load(factor, lanes_at(j, self.lanes))

        accumulators, tile = _tile(height, self.width, self.lanes, count, operands, begin)
        statements += tile
        for i, accumulator in enumerate(accumulators):
            for j in self.vectors:
                at = lanes_at(base + i * self.width + j, self.lanes)
                statements.append(store(s.sums, load(accumulator, lanes_at(j, self.lanes)), at))
        return seq(statements)

    def _end(self, panel: Expr) -> Stmt:
        """Divide by the sums of the powers, and store row by row."""
        o, s = self.o, self.scratch
        out = o.views.of(o.anchor.output)
        statements: list[Stmt] = []
        base = panel * self.width
        one, zero = (broadcast(const_like(c, "float32"), self.lanes) for c in (1.0, 0.0))
        for j in self.vectors:
            at = lanes_at(base + j, self.lanes)
            total = load(s.totals, at)
            inverse = one / total
            if o.keep_masked:
                inverse = tirx.Select(total > zero, inverse, zero)
            statements.append(store(s.totals, inverse, at))

        def query(lane: Expr) -> Stmt:
            def column(d: Expr) -> Stmt:
                at = {**self.bound, o.query: self._query(panel, lane), o.column: d}
                value = load(s.sums, (panel * o.value_depth + d) * self.width + lane)
                return store(out, value * load(s.totals, base + lane), substitute(o.out, at))

            return loop(o.value_depth, column, "column")

        return seq(statements, loop(self.width, query, "query"))


def _constant(value: Expr) -> int:
    known = as_int(value)
    assert known is not None
    return known


def _evaluate(value: Expr, registers: Registers) -> tuple[Expr, list[Stmt]]:
    """``value`` in a register, and the statements that compute it."""
    statements, result = vector_math(value, registers)
    return registers.keep(result, statements), statements


def _row_tiles(count: Expr, height: int, tile: Callable[[Expr, int], Stmt]) -> Stmt:
    """``count`` rows in tiles of ``height``, then one tile for each power of two in what is left."""
    full = floordiv(count, height)
    done, statements = bind("done", full * height)
    statements = [loop(full, lambda t: tile(t * height, height), "row_tile"), *statements]
    left = simplify(count - done)
    size = 1 << (height - 1).bit_length() >> 1
    while size:
        at = done + floordiv(left, 2 * size) * (2 * size)
        statements.append(if_then(floormod(floordiv(left, size), 2) > 0, tile(at, size)))
        size //= 2
    return seq(statements)


def _tile(
    height: int,
    width: int,
    lanes: int,
    depth: Expr | int,
    operands: Callable[[Expr], tuple[list[Expr], list[Expr]]],
    begin: Callable[[int, int], Expr] | None = None,
) -> tuple[list[Buffer], list[Stmt]]:
    """A tile's accumulators, ``height`` rows of ``width``, and the statements that sum them over ``depth``."""
    made = [allocate([width], "float32", "accumulators", "local") for _ in range(height)]
    accumulators = [buffer for buffer, _ in made]
    places = [(i, j) for i in range(height) for j in range(0, width, lanes)]
    zero = broadcast(const_like(0.0, "float32"), lanes)
    statements: list[Stmt] = [declaration for _, declaration in made]
    for i, j in places:
        statements.append(store(accumulators[i], begin(i, j) if begin else zero, lanes_at(j, lanes)))

    def step(k: Expr) -> list[Stmt]:
        a, b = operands(k)
        return [
            store(
                accumulators[i],
                load(accumulators[i], lanes_at(j, lanes)) + broadcast(a[i], lanes) * b[j // lanes],
                lanes_at(j, lanes),
            )
            for i, j in places
        ]

    unroll = 4
    while len(places) * unroll > 64 and unroll > 1:
        unroll //= 2
    blocks = floordiv(depth, unroll)
    if as_int(blocks) != 0:
        statements.append(loop(blocks, lambda k: seq(*(step(k * unroll + u) for u in range(unroll))), "k"))
    left = floormod(depth, unroll)
    if as_int(left) != 0:
        done = simplify(i64(blocks) * unroll)
        statements.append(loop(left, lambda k: seq(step(done + k)), "k_tail"))
    return accumulators, statements
