"""Attention on a device whose threads are those of a CPU: each has some queries, and all else, to itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from assay.compile.device_schedules.attention_problem import DeviceAttention, least
from assay.compile.device_schedules.attention_tiles import AttentionTile
from assay.compile.device_schedules.threads import local
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    broadcast,
    ceildiv,
    constant,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    minimum,
    seq,
    store,
    vector_dtype,
)
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["thread_attention"]


def thread_attention(problem: DeviceAttention, tile: AttentionTile, target: GpuTarget) -> Stmt:
    """One launch that computes ``problem``. A vector's lanes are queries; keys and values are broadcast."""
    del target
    return _Kernel(problem, tile).emit()


class _Kernel:
    def __init__(self, problem: DeviceAttention, tile: AttentionTile) -> None:
        self.p, self.t = problem, tile
        self.columns, self.lanes = tile.columns, tile.lanes
        keys = as_int(problem.keys)
        self.keys = tile.keys
        if keys is not None:
            # Blocks of equal size: 196 keys are four of 52.
            blocks = -(-keys // tile.keys)
            self.keys = -(-keys // blocks // tile.key_rows) * tile.key_rows
        self.turns = -(-problem.value_depth // tile.depth_rows)
        self.declared: list[Stmt] = []
        self.queries = self._memory(problem.depth, "queries")
        self.scores = self._memory(self.keys, "scores")
        self.sums = self._memory(self.turns * tile.depth_rows, "sums")
        self.tile = self._registers(max(tile.key_rows, tile.depth_rows) * tile.vectors, "tile")
        self.peaks, self.totals, self.shrinks = (
            self._registers(tile.vectors, name) for name in ("peaks", "totals", "shrinks")
        )

    def _memory(self, rows: int, name: str) -> Buffer:
        """Rows of an element of each query."""
        buffer, declaration = local(rows * self.columns, "float32", name)
        self.declared.append(declaration)
        return buffer

    def _registers(self, count: int, name: str) -> Buffer:
        dtype = vector_dtype("float32", self.lanes)
        buffer, declaration = local(count, dtype, name)
        self.declared.append(declaration)
        return buffer

    def _at(self, row: Expr, vector: int) -> Expr:
        return lanes_at(row * self.columns + vector * self.lanes, self.lanes)

    def _line(self, memory: Buffer, row: Expr, vector: int) -> Expr:
        return tirx.BufferLoad(memory, [self._at(row, vector)])

    def _put_line(self, memory: Buffer, value: Expr, row: Expr, vector: int) -> Stmt:
        return tirx.BufferStore(memory, value, [self._at(row, vector)])

    def emit(self) -> Stmt:
        return self.p.launch(self.t.queries, self.t.threads, self._thread)

    def _thread(self, lead: Sequence[Expr], first: Expr, lane: Expr) -> Stmt:
        first, bound = bind("query", first + lane * self.columns)
        blocks = ceildiv(self.p.keys, self.keys)
        body = seq(
            self.declared,
            self._start(lead, first),
            loop(blocks, lambda block: self._block(lead, first, block), "block"),
            self._end(lead, first),
        )
        alone = self.t.threads == 1 or (as_int(self.p.queries) or 1) % self.t.queries == 0
        return seq(bound, body if alone else if_then(first < self.p.queries, body))

    def _start(self, lead: Sequence[Expr], first: Expr) -> list[Stmt]:
        """Read the queries, scaled, and clear the sums."""

        def row(d: Expr) -> Stmt:
            def column(c: Expr) -> Stmt:
                value = self.p.q(lead, self.p.a_query(first + c, self.columns), d)
                value = value if self.p.scale is None else value * self.p.scale
                return store(self.queries, value, d * self.columns + c)

            return loop(self.columns, column, "column")

        zero = constant(0.0, "float32", self.lanes)
        vectors = range(self.t.vectors)

        def clear(d: Expr) -> Stmt:
            return seq([self._put_line(self.sums, zero, d, v) for v in vectors])

        return [
            loop(self.p.depth, row, "d"),
            loop(self.turns * self.t.depth_rows, clear, "d"),
            *(store(self.peaks, broadcast(least(), self.lanes), v) for v in vectors),
            *(store(self.totals, zero, v) for v in vectors),
        ]

    def _block(self, lead: Sequence[Expr], first: Expr, block: Expr) -> Stmt:
        start, bound = bind("start", block * self.keys)
        count, more = self.p.keys_from(start, self.keys)
        statements = [*bound, *more, self._score(lead, start, count)]
        if self.p.modify is not None:
            statements.append(loop(count, lambda t: self._modified(lead, first, start, t), "key"))
        return seq(statements, self._powers(count), self._add(lead, start, count))

    def _multiplied(self, rows: int, left: Callable[[int], Expr], right: Buffer, step: Expr) -> Stmt:
        """Add the products of a step to a tile of sums."""
        statements: list[Stmt] = []
        lines = []
        for v in range(self.t.vectors):
            line, bound = bind("line", self._line(right, step, v))
            lines.append(line)
            statements += bound
        for r in range(rows):
            factor, bound = bind("factor", left(r))
            statements += bound
            for v, line in enumerate(lines):
                number = r * self.t.vectors + v
                product = broadcast(factor, self.lanes) * line
                statements.append(store(self.tile, load(self.tile, number) + product, number))
        return seq(statements)

    def _score(self, lead: Sequence[Expr], start: Expr, count: Expr) -> Stmt:
        """The products of the queries and the keys of a block; some keys beyond its end are others."""
        rows, vectors = self.t.key_rows, self.t.vectors
        zero = constant(0.0, "float32", self.lanes)

        def keys(turn: Expr) -> Stmt:
            first, bound = bind("row", turn * rows)
            at: list[Expr] = []
            for r in range(rows):
                place, more = bind("key", self.p.a_key(start + first + r, self.keys))
                at.append(place)
                bound += more

            def step(d: Expr) -> Stmt:
                return self._multiplied(rows, lambda r: self.p.k(lead, at[r], d), self.queries, d)

            return seq(
                bound,
                [store(self.tile, zero, n) for n in range(rows * vectors)],
                loop(self.p.depth, step, "d"),
                [
                    self._put_line(self.scores, load(self.tile, r * vectors + v), first + r, v)
                    for r in range(rows)
                    for v in range(vectors)
                ],
            )

        return loop(ceildiv(count, rows), keys, "turn")

    def _modified(self, lead: Sequence[Expr], first: Expr, start: Expr, key: Expr) -> Stmt:
        """Scale, mask and whatever else there is, for a row of scores."""
        assert self.p.modify is not None
        modify = self.p.modify

        def column(c: Expr) -> Stmt:
            query, bound = bind("query", self.p.a_query(first + c, self.columns))
            score, more = bind("product", load(self.scores, key * self.columns + c))
            statements, value = modify(lead, start + key, query, score)
            return seq(bound, more, statements, store(self.scores, value, key * self.columns + c))

        return loop(self.columns, column, "column")

    def _powers(self, count: Expr) -> list[Stmt]:
        """Powers in the place of scores, their sums, and what makes earlier sums comparable."""
        statements: list[Stmt] = []
        for v in range(self.t.vectors):
            before, bound = bind("before", load(self.peaks, v))

            def grow(t: Expr, v: int = v) -> Stmt:
                most = tirx.max(load(self.peaks, v), self._line(self.scores, t, v))
                return store(self.peaks, most, v)

            peak, more = bind("peak", load(self.peaks, v))

            def power(t: Expr, v: int = v, peak: Expr = peak) -> Stmt:
                value, power_bound = bind("power", tirx.exp(self._line(self.scores, t, v) - peak))
                return seq(
                    power_bound,
                    self._put_line(self.scores, value, t, v),
                    store(self.totals, load(self.totals, v) + value, v),
                )

            statements += [
                *bound,
                loop(count, grow, "key"),
                *more,
                store(self.shrinks, tirx.exp(before - peak), v),
                store(self.totals, load(self.totals, v) * load(self.shrinks, v), v),
                loop(count, power, "key"),
            ]
        return statements

    def _add(self, lead: Sequence[Expr], start: Expr, count: Expr) -> Stmt:
        """Add the weighted values of a block to the sums."""
        rows, vectors = self.t.depth_rows, self.t.vectors
        last = self.p.value_depth - 1
        exact = self.p.value_depth % rows == 0

        def elements(turn: Expr) -> Stmt:
            first, bound = bind("row", turn * rows)
            places = [(r, v) for r in range(rows) for v in range(vectors)]

            def step(t: Expr) -> Stmt:
                def value(r: int) -> Expr:
                    at = first + r
                    return self.p.v(lead, start + t, at if exact else minimum(at, last))

                return self._multiplied(rows, value, self.scores, t)

            def shrunk(r: int, v: int) -> Expr:
                return self._line(self.sums, first + r, v) * load(self.shrinks, v)

            return seq(
                bound,
                [store(self.tile, shrunk(r, v), r * vectors + v) for r, v in places],
                loop(count, step, "key"),
                [
                    self._put_line(self.sums, load(self.tile, r * vectors + v), first + r, v)
                    for r, v in places
                ],
            )

        return loop(self.turns, elements, "turn")

    def _end(self, lead: Sequence[Expr], first: Expr) -> list[Stmt]:
        """Store the results, by way of memory: registers have no element of a variable number."""
        kept = [self._put_line(self.scores, load(self.totals, v), i64(0), v) for v in range(self.t.vectors)]

        def column(c: Expr) -> Stmt:
            query, bound = bind("query", first + c)
            total, more = bind("total", load(self.scores, c))

            def element(d: Expr) -> Stmt:
                value = self.p.divided(load(self.sums, d * self.columns + c), total)
                return self.p.put(lead, query, d, value)

            done = seq(more, loop(self.p.value_depth, element, "d"))
            inside = (as_int(self.p.queries) or 1) % self.columns == 0
            return seq(bound, done if inside else if_then(query < self.p.queries, done))

        return [*kept, loop(self.columns, column, "column")]
