"""Attention on a device by groups of threads: a tile of scores and one of results a thread.

For a block of keys, each thread of a group computes a tile of scores in registers, and shares its largest
ones. Then it shares the powers of its tile, and adds weighted values to a tile of the result that it has in
registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from assay.compile.device_schedules.attention_problem import DeviceAttention, least
from assay.compile.device_schedules.attention_tiles import AttentionTile
from assay.compile.device_schedules.shared_panel import LANES, lane_of
from assay.compile.device_schedules.threads import barrier, hidden_count, local, shared
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
    bind,
    broadcast,
    ceildiv,
    constant,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    minimum,
    seq,
    simplify,
    store,
    vector_dtype,
)
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["block_attention"]


def block_attention(problem: DeviceAttention, tile: AttentionTile, target: GpuTarget) -> Stmt:
    """One launch that computes ``problem``."""
    return _Kernel(problem, tile, target).emit()


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where a thread is: the index of its head, the group's first query, its number, column and row."""

    lead: Sequence[Expr]
    first: Expr
    lane: Expr
    across: Expr
    down: Expr


class _Kernel:
    def __init__(self, problem: DeviceAttention, tile: AttentionTile, target: GpuTarget) -> None:
        self.p, self.t, self.kind = problem, tile, target.kind
        self.declared: list[Stmt] = []
        if tile.panels:
            sizes = tile.panel_sizes(problem.depth)
            self.query_panel = self._kept(shared(sizes[0], "float32", "query_panel"))
            self.panel = self._kept(shared(sizes[1], "float32", "panel"))
        # What is written is read by others only: threads need not wait for each other's reads in between.
        self.powers = self._kept(shared(tile.keys * tile.queries, "float32", "powers"))
        self.partial = self._kept(shared(tile.down * tile.queries, "float32", "partial"))
        self.products = self._registers(tile.key_rows * tile.vectors, "products")
        self.sums = self._registers(tile.depth_rows * tile.vectors, "sums")
        self.peaks = self._registers(tile.vectors, "peaks")
        self.totals = self._registers(tile.vectors, "totals")

    def _registers(self, count: int, name: str) -> Buffer:
        return self._kept(local(count, vector_dtype("float32", self.t.lanes), name))

    def _kept(self, made: tuple[Buffer, Stmt]) -> Buffer:
        buffer, declaration = made
        self.declared.append(declaration)
        return buffer

    def _constant(self, value: float) -> Expr:
        return constant(value, "float32", self.t.lanes)

    def emit(self) -> Stmt:
        return self.p.launch(self.t.queries, self.t.threads, self._group)

    def _group(self, lead: Sequence[Expr], first: Expr, lane: Expr) -> Stmt:
        tile, zero = self.t, self._constant(0.0)
        across, one = bind("across", floormod(lane, tile.across) * tile.lanes)
        down, two = bind("down", floordiv(lane, tile.across))
        places = _Places(lead=lead, first=first, lane=lane, across=across, down=down)
        vectors = range(tile.vectors)
        return seq(
            one,
            two,
            self.declared,
            [store(self.sums, zero, n) for n in range(tile.depth_rows * tile.vectors)],
            [store(self.totals, zero, v) for v in vectors],
            [store(self.peaks, broadcast(least(), tile.lanes), v) for v in vectors],
            self._fetch_queries(places) if tile.panels else [],
            loop(ceildiv(self.p.keys, tile.keys), lambda block: self._block(places, block), "block"),
            self._end(places),
        )

    def _block(self, places: _Places, block: Expr) -> Stmt:
        tile, size = self.t, self.t.keys
        start, bound = bind("start", block * size)
        count, more = self.p.keys_from(start, size)
        row, another = bind("row", places.down * tile.key_rows)
        return seq(
            bound,
            more,
            another,
            [self._fetch_keys(places, start), barrier()] if tile.panels else [],
            self._score(places, start, row),
            self._largest(places),
            barrier(),
            self._fetch_values(places, start) if tile.panels else [],
            self._powers(places, row, count),
            barrier(),
            self._add(places, start, count),
            barrier(),
        )

    # Panels of shared memory.

    def _fetch(self, rows: int, places: _Places, put: Callable[[Expr, Expr], Stmt], width: int) -> Stmt:
        """``put(row, column)`` for all elements, of which consecutive threads have consecutive columns."""
        threads = self.t.threads

        def turn(n: Expr) -> Stmt:
            number, bound = bind("number", n * threads + places.lane)
            row, one = bind("row", floordiv(number, width))
            column, two = bind("column", floormod(number, width))
            done = seq(one, two, put(row, column))
            return seq(bound, done if rows * width % threads == 0 else if_then(number < rows * width, done))

        return loop(hidden_count(ceildiv(i64(rows * width), threads), self.kind), turn, "turn")

    def _fetch_queries(self, places: _Places) -> Stmt:
        def put(row: Expr, d: Expr) -> Stmt:
            value = self.p.q(places.lead, self.p.a_query(places.first + row, self.t.queries), d)
            value = value if self.p.scale is None else value * self.p.scale
            return store(self.query_panel, value, d * self.t.query_pitch + row)

        return self._fetch(self.t.queries, places, put, self.p.depth)

    def _fetch_keys(self, places: _Places, start: Expr) -> Stmt:
        def put(row: Expr, d: Expr) -> Stmt:
            value = self.p.k(places.lead, self.p.a_key(start + row, self.t.keys), d)
            return store(self.panel, value, d * self.t.key_pitch + row)

        return self._fetch(self.t.keys, places, put, self.p.depth)

    def _fetch_values(self, places: _Places, start: Expr) -> Stmt:
        def put(row: Expr, d: Expr) -> Stmt:
            value = self.p.v(places.lead, self.p.a_key(start + row, self.t.keys), d)
            return store(self.panel, value, row * self.t.value_pitch + d)

        return self._fetch(self.t.keys, places, put, self.p.value_depth)

    # Tiles of products.

    def _column(self, places: _Places, vector: int) -> Expr:
        """The first query of a vector of this thread; those of neighbours lie beside it."""
        return simplify(places.across + vector * self.t.lanes * self.t.across)

    def _line(self, memory: Buffer, at: Expr) -> Expr:
        return tirx.BufferLoad(memory, [lanes_at(simplify(at), self.t.lanes)])

    def _put_line(self, memory: Buffer, value: Expr, at: Expr) -> Stmt:
        return tirx.BufferStore(memory, value, [lanes_at(simplify(at), self.t.lanes)])

    def _rows_of_panel(self, at: Expr, count: int) -> tuple[list[Expr], list[Stmt]]:
        """Elements of the panel that lie beside each other."""
        lanes = min(LANES, count)
        elements, statements = list[Expr](), list[Stmt]()
        for group in range(count // lanes):
            where = lanes_at(simplify(at + group * lanes), lanes)
            vector, bound = bind("rows", tirx.BufferLoad(self.panel, [where]))
            statements += bound
            elements += [lane_of(vector, lane, lanes) for lane in range(lanes)]
        return elements, statements

    def _multiply(self, sums: Buffer, left: Sequence[Expr], right: Sequence[Expr]) -> list[Stmt]:
        """Add the products of a step to a tile of sums."""
        statements = []
        for r, factor in enumerate(left):
            for v, line in enumerate(right):
                number = r * self.t.vectors + v
                product = broadcast(factor, self.t.lanes) * line
                statements.append(store(sums, load(sums, number) + product, number))
        return statements

    @property
    def _tile(self) -> list[tuple[int, int]]:
        """The rows and vectors of the scores of a thread."""
        return [(r, v) for r in range(self.t.key_rows) for v in range(self.t.vectors)]

    def _score(self, places: _Places, start: Expr, row: Expr) -> Stmt:
        """The scores of a block, in registers; those of keys beyond its end are the last key's."""
        tile, statements = self.t, list[Stmt]()
        keys, queries = list[Expr](), list[Expr]()
        for r in range(tile.key_rows):
            key, bound = bind("key", self.p.a_key(start + row + r, tile.keys))
            keys.append(key)
            statements += bound
        for v in range(tile.vectors * tile.lanes):
            column = self._column(places, v // tile.lanes) + v % tile.lanes
            query, bound = bind("query", self.p.a_query(places.first + column, tile.queries))
            queries.append(query)
            statements += bound

        def step(d: Expr) -> Stmt:
            right, reads = list[Expr](), list[Stmt]()
            if tile.panels:
                left, reads = self._rows_of_panel(d * tile.key_pitch + row, tile.key_rows)
                lines = [
                    self._line(self.query_panel, d * tile.query_pitch + self._column(places, v))
                    for v in range(tile.vectors)
                ]
            else:
                left = []
                for key in keys:
                    value, bound = bind("element", self.p.k(places.lead, key, d))
                    left.append(value)
                    reads += bound
                lines = [self.p.q(places.lead, query, d) for query in queries]
            for line in lines:
                value, bound = bind("line", line)
                right.append(value)
                reads += bound
            return seq(reads, self._multiply(self.products, left, right))

        return seq(
            statements,
            [store(self.products, self._constant(0.0), n) for n in range(len(self._tile))],
            loop(hidden_count(i64(self.p.depth), self.kind), step, "d"),
            [self._finished_score(places, keys[r], queries, r, v) for r, v in self._tile],
        )

    def _finished_score(
        self, places: _Places, key: Expr, queries: Sequence[Expr], row: int, vector: int
    ) -> Stmt:
        """Scale, mask and whatever else there is, for a vector of scores."""
        tile, number = self.t, row * self.t.vectors + vector
        score, statements = bind("score", load(self.products, number))
        if not tile.panels and self.p.scale is not None:  # the panel's queries are scaled
            score = score * self.p.scale
        elif self.p.modify is None:
            return seq()
        if self.p.modify is not None:
            scores = []
            for lane in range(tile.lanes):
                query = queries[vector * tile.lanes + lane]
                steps, value = self.p.modify(places.lead, key, query, lane_of(score, lane, tile.lanes))
                statements += steps
                scores.append(value)
            score = _vector(scores)
        return seq(statements, store(self.products, score, number))

    # The softmax.

    def _each(self, function: Callable[..., Expr], *vectors: Expr) -> Expr:
        """``function`` of elements: CUDA has none of vectors."""
        lanes = self.t.lanes
        return _vector([function(*(lane_of(each, n, lanes) for each in vectors)) for n in range(lanes)])

    def _if_key(self, row: Expr, count: Expr, done: Stmt) -> Stmt:
        """``done`` where the block has as many keys."""
        return done if as_int(count) == self.t.keys else if_then(row < count, done)

    def _largest(self, places: _Places) -> list[Stmt]:
        """Share the largest score of this thread for each of its queries.

        Those of keys beyond the end are the last key's.
        """
        tile, statements = self.t, list[Stmt]()
        for v in range(tile.vectors):
            most = load(self.products, v)
            for r in range(1, tile.key_rows):
                most = self._each(tirx.max, most, load(self.products, r * tile.vectors + v))
            at = places.down * tile.queries + self._column(places, v)
            statements.append(self._put_line(self.partial, most, at))
        return statements

    def _powers(self, places: _Places, row: Expr, count: Expr) -> list[Stmt]:
        """Share powers; make earlier sums comparable."""
        tile, statements = self.t, list[Stmt]()
        for v in range(tile.vectors):
            column = self._column(places, v)
            before, bound = bind("before", load(self.peaks, v))
            statements += bound
            for part in range(tile.down):
                line, bound = bind("line", self._line(self.partial, column + part * tile.queries))
                most = self._each(tirx.max, load(self.peaks, v), line)
                statements += [*bound, store(self.peaks, most, v)]
            peak, bound = bind("peak", load(self.peaks, v))
            shrink, more = bind("shrink", self._each(tirx.exp, before - peak))
            statements += [*bound, *more, store(self.totals, load(self.totals, v) * shrink, v)]
            for r in range(tile.depth_rows):
                number = r * tile.vectors + v
                statements.append(store(self.sums, load(self.sums, number) * shrink, number))
            for r in range(tile.key_rows):
                score = load(self.products, r * tile.vectors + v)
                power, bound = bind("power", self._each(tirx.exp, score - peak))
                done = seq(
                    bound,
                    store(self.totals, load(self.totals, v) + power, v),
                    self._put_line(self.powers, power, (row + r) * tile.queries + column),
                )
                statements.append(self._if_key(row + r, count, done))
        return statements

    def _add(self, places: _Places, start: Expr, count: Expr) -> Stmt:
        """Add the weighted values of a block to the sums of this thread."""
        tile = self.t
        row, bound = bind("element", places.down * tile.depth_rows)
        last = self.p.value_depth - 1

        def step(t: Expr) -> Stmt:
            if tile.panels:
                left, reads = self._rows_of_panel(t * tile.value_pitch + row, tile.depth_rows)
            else:
                left, reads = [], []
                for r in range(tile.depth_rows):
                    at = row + r if self._all_down else minimum(row + r, last)
                    value, more = bind("element", self.p.v(places.lead, start + t, at))
                    left.append(value)
                    reads += more
            right: list[Expr] = []
            for v in range(tile.vectors):
                line, more = bind("line", self._line(self.powers, t * tile.queries + self._column(places, v)))
                right.append(line)
                reads += more
            return seq(reads, self._multiply(self.sums, left, right))

        return seq(bound, loop(hidden_count(count, self.kind), step, "key"))

    @property
    def _all_down(self) -> bool:
        """Whether every row of every thread is an element of the result."""
        return self.p.value_depth == self.t.down * self.t.depth_rows

    def _end(self, places: _Places) -> list[Stmt]:
        """Add up the totals of the threads that share queries, and store the results."""
        tile, statements = self.t, list[Stmt]()
        for v in range(tile.vectors):
            at = places.down * tile.queries + self._column(places, v)
            statements.append(self._put_line(self.partial, load(self.totals, v), at))
        row, bound = bind("element", places.down * tile.depth_rows)
        statements += [barrier(), *bound]
        inside = (as_int(self.p.queries) or 1) % tile.queries == 0
        for v in range(tile.vectors):
            column, total = self._column(places, v), self._constant(0.0)
            for part in range(tile.down):
                total = total + self._line(self.partial, column + part * tile.queries)
            whole, more = bind("total", total)
            statements += more
            for lane in range(tile.lanes):
                query, more = bind("query", places.first + column + lane)
                stores = [self._put(places, query, row, r, v, lane, whole) for r in range(tile.depth_rows)]
                done = seq(stores)
                statements += [*more, done if inside else if_then(query < self.p.queries, done)]
        return statements

    def _put(self, places: _Places, query: Expr, row: Expr, r: int, v: int, lane: int, total: Expr) -> Stmt:
        """Store one element of the result."""
        at, bound = bind("at", row + r)
        lanes = self.t.lanes
        value = lane_of(load(self.sums, r * self.t.vectors + v), lane, lanes)
        done = self.p.put(places.lead, query, at, self.p.divided(value, lane_of(total, lane, lanes)))
        return seq(bound, done if self._all_down else if_then(at < self.p.value_depth, done))


def _vector(elements: Sequence[Expr]) -> Expr:
    return elements[0] if len(elements) == 1 else tirx.Shuffle(list(elements), list(range(len(elements))))
