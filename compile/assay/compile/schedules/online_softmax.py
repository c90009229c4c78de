"""Panels of queries over blocks of keys: scores on register tiles, running maxima and sums, weighted values.

A panel is ``width`` queries, the lanes of its vectors. For each block of keys a panel's scores are computed
``[keys, width]``, its maximum raised, what was summed so far scaled down to the new maximum, and the values
added with the new powers as weights; see ``attention.py`` for the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from tvm import tirx

from assay.compile.schedules.attention_problem import Access, Panels, Problem, Scratch
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
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    minimum,
    seq,
    store,
)
from assay.compile.schedules.math import Registers, exp_below_one, with_registers
from assay.compile.schedules.program import emit_program
from assay.compile.schedules.register_tile import accumulate, row_tiles, vector_variable
from assay.compile.schedules.tiles import choose_tile
from assay.compile.schedules.transpose import turn

__all__ = ["emit_panels"]

# A mask that adds this or less hides a key: beside a score that it leaves alone, the power is 0.
_HIDDEN = -1e30


def emit_panels(problem: Problem, scratch: Scratch, panels: Panels, bound: Mapping[Expr, Expr]) -> Stmt:
    """The result of ``panels`` of one head, whose variables ``bound`` gives."""
    return _Emitter(problem, scratch, panels, bound).emit()


class _Emitter:
    def __init__(
        self, problem: Problem, scratch: Scratch, panels: Panels, bound: Mapping[Expr, Expr]
    ) -> None:
        self.p, self.scratch, self.panels, self.bound = problem, scratch, panels, dict(bound)
        self.lanes, self.width = problem.unit.lanes(), panels.width
        self.vectors = range(0, self.width, self.lanes)
        self.zero = broadcast(const_like(0.0, "float32"), self.lanes)

    @cached_property
    def lowest(self) -> Expr:
        """Minus infinity."""
        return const_like(float("-inf"), "float32")

    def emit(self) -> Stmt:
        """Begin all panels, pass each over one block of keys after the other, and end them.

        Blocks that the mask hides from a whole panel are skipped: their powers would be 0. A query that then
        has seen nothing may still have to see what is hidden (equal masks are equal weights), so that its
        panel passes over all blocks a second time.
        """
        count = self.panels.count
        if self.p.mask is None:
            work = self._blocks(lambda panel, start, keys: self._panel(panel, start, keys))
        else:
            work = loop(2, self._attempt, "attempt")
        return seq(loop(count, self._begin, "panel"), work, loop(count, self._end, "panel"))

    def _blocks(self, body: Callable[[Expr, Expr, Expr], Stmt]) -> Stmt:
        """``body(panel, first key, number of keys)`` for all panels of all blocks."""
        keys, size = i64(self.p.keys), self.p.key_block

        def block(b: Expr) -> Stmt:
            start, statements = bind("keys_start", b * size)
            count, more = bind("keys_count", minimum(keys - start, size))
            return seq(statements, more, loop(self.panels.count, lambda p: body(p, start, count), "panel"))

        return loop(ceildiv(keys, size), block, "key_block")

    def _attempt(self, attempt: Expr) -> Stmt:
        """The first time the blocks that a panel sees, the second time all blocks of the panels flagged."""
        s = self.scratch
        is_first = tirx.EQ(attempt, i64(0))
        yes, no = (tirx.const(flag, "int32") for flag in (1, 0))

        def work(panel: Expr, start: Expr, count: Expr) -> Stmt:
            runs, declaration = allocate([1], "int32", "runs", "local")
            hidden = seq(store(runs, no, 0), store(s.skipped, yes, panel))
            best, look = self._largest_mask(panel, start, count)
            look.append(if_then(best > const_like(_HIDDEN, "float32"), store(runs, yes, 0), hidden))
            return seq(
                declaration,
                if_then(is_first, seq(look), store(runs, load(s.again, panel), 0)),
                if_then(load(runs, 0) > no, self._panel(panel, start, count)),
            )

        def decide(panel: Expr) -> Stmt:
            def query(lane: Expr) -> Stmt:
                saw_nothing = load(s.peaks, panel * self.width + lane) <= const_like(_HIDDEN, "float32")
                return if_then(saw_nothing, store(s.again, load(s.skipped, panel), panel))

            repeated = if_then(load(s.again, panel) > no, self._clear(panel))
            return seq(store(s.again, no, panel), loop(self.width, query, "query"), repeated)

        decisions = loop(self.panels.count, decide, "panel")
        return seq(self._blocks(work), if_then(is_first, decisions))

    def _largest_mask(self, panel: Expr, start: Expr, count: Expr) -> tuple[Expr, list[Stmt]]:
        """The largest number that the mask adds to any score of a block."""
        mask = self.p.mask
        assert mask is not None
        best, declaration = allocate([self.width], "float32", "best", "local")
        statements: list[Stmt] = [declaration]
        for j in self.vectors:
            statements.append(store(best, broadcast(self.lowest, self.lanes), lanes_at(j, self.lanes)))

        def pair(t: Expr) -> Stmt:
            """Two keys at once, to wait half as often for the maximum before."""

            def element(lane: Expr, _: Registers, j: int) -> Stmt:
                at = {**self.bound, self.p.query: self._query(panel, j + lane)}
                rows = [start + t * 2, start + tirx.min(t * 2 + 1, count - 1)]
                a, b = (load(mask.buffer, mask.at({**at, self.p.key: row})) for row in rows)
                return store(best, tirx.max(load(best, j + lane), tirx.max(a, b)), j + lane)

            return seq(
                *(
                    with_registers(self.lanes, lambda lane, r, j=j: element(lane, r, j))  # type: ignore[misc]
                    for j in self.vectors
                )
            )

        statements.append(loop(floordiv(count + 1, 2), pair, "key"))
        first = lanes_at(0, self.lanes)
        for j in self.vectors[1:]:
            largest = tirx.max(load(best, first), load(best, lanes_at(j, self.lanes)))
            statements.append(store(best, largest, first))
        half = self.lanes
        while half > 1:
            half //= 2
            low, high = load(best, lanes_at(0, half)), load(best, lanes_at(half, half))
            statements.append(store(best, tirx.max(low, high), lanes_at(0, half)))
        return load(best, 0), statements

    def _query(self, panel: Expr, lane: Expr | int) -> Expr:
        at = self.panels.first + panel * self.width + lane
        return tirx.min(at, i64(self.p.queries) - 1) if self.panels.clamped else at

    def _squares(
        self, depth: int, access: Access, square: Callable[[Expr, int], Stmt], one: Callable[[Expr], Stmt]
    ) -> Stmt:
        """Columns in squares of ``lanes`` where they are contiguous, then one by one."""
        whole = depth // self.lanes if as_int(access.step(self.p.column)) == 1 and self.lanes % 4 == 0 else 0
        done = whole * self.lanes
        statements = []
        if whole:
            statements.append(
                loop(whole, lambda c: seq(*(square(c * self.lanes, j) for j in self.vectors)), "columns")
            )
        if done < depth:
            statements.append(loop(depth - done, lambda d: one(done + d), "column"))
        return seq(statements)

    def _begin(self, panel: Expr) -> Stmt:
        """Pack a panel of Q as ``[depth, width]``."""
        s, p = self.scratch, self.p
        scale = const_like(p.q_scale, "float32")

        def place(query: Expr | int, column: Expr) -> Expr:
            return p.q.at({**self.bound, p.query: self._query(panel, query), p.column: column})

        def square(column: Expr, j: int) -> Stmt:
            statements: list[Stmt] = []
            rows = []
            for lane in range(self.lanes):
                value = load(p.q.buffer, lanes_at(place(j + lane, column), self.lanes))
                rows.append(vector_variable(value * broadcast(scale, self.lanes), self.lanes, statements))
            for i, vector in enumerate(turn(rows, "float32", self.lanes, statements)):
                at = (panel * p.depth + column + i) * self.width + j
                statements.append(store(s.queries, vector, lanes_at(at, self.lanes)))
            return seq(statements)

        def one(d: Expr) -> Stmt:
            def element(lane: Expr) -> Stmt:
                value = load(p.q.buffer, place(lane, d)) * scale
                return store(s.queries, value, (panel * p.depth + d) * self.width + lane)

            return loop(self.width, element, "query")

        statements = [self._squares(p.depth, p.q, square, one), self._clear(panel)]
        if p.mask is not None:
            statements.append(store(s.skipped, tirx.const(0, "int32"), panel))
        return seq(statements)

    def _clear(self, panel: Expr) -> Stmt:
        """Nothing summed yet."""
        s, depth = self.scratch, self.p.value_depth
        statements: list[Stmt] = []
        for j in self.vectors:
            at = lanes_at(panel * self.width + j, self.lanes)
            statements += [
                store(s.peaks, broadcast(self.lowest, self.lanes), at),
                store(s.totals, self.zero, at),
            ]

        def column(d: Expr) -> Stmt:
            base = (panel * depth + d) * self.width
            return seq(*(store(s.sums, self.zero, lanes_at(base + j, self.lanes)) for j in self.vectors))

        return seq(statements, loop(depth, column, "column"))

    def _panel(self, panel: Expr, start: Expr, count: Expr) -> Stmt:
        """One block of keys for one panel: scores, powers and their sum, weighted values."""
        p, s = self.p, self.scratch
        peak, declaration = allocate([self.width], "float32", "peak", "local")
        factor, more = allocate([self.width], "float32", "factor", "local")
        total, last = allocate([self.width], "float32", "total", "local")
        statements: list[Stmt] = [declaration, more, last]
        base, binding = bind("panel_start", panel * self.width)
        statements += binding
        for j in self.vectors:
            at = lanes_at(base + j, self.lanes)
            statements.append(store(peak, load(s.peaks, at), lanes_at(j, self.lanes)))
        rows = choose_tile(p.unit, p.expected_keys, self.width, p.depth).rows
        statements.append(
            row_tiles(count, rows, lambda row, height: self._scores(panel, start, row, height, peak))
        )
        statements += [self._rescale(base, j, peak, factor, total) for j in self.vectors]
        statements.append(loop(count, lambda t: self._powers(t, peak, total), "key"))
        for j in self.vectors:
            at = lanes_at(base + j, self.lanes)
            statements.append(store(s.totals, load(total, lanes_at(j, self.lanes)), at))
        height = choose_tile(p.unit, p.value_depth, self.width, None).rows
        full, left = divmod(p.value_depth, height)
        if full:
            statements.append(
                loop(full, lambda d: self._weigh(panel, start, count, d * height, height, factor), "columns")
            )
        if left:
            statements.append(self._weigh(panel, start, count, i64(full * height), left, factor))
        return seq(statements)

    def _scores(self, panel: Expr, start: Expr, row: Expr, height: int, peak: Buffer) -> Stmt:
        """``height`` keys' scores for the panel, modified, and the largest so far."""
        p, s = self.p, self.scratch
        step = p.k.step(p.column)
        statements: list[Stmt] = []
        places = []
        for i in range(height):
            at = p.k.at({**self.bound, p.key: start + row + i, p.column: i64(0)})
            place, more = bind(f"key{i}", at)
            statements += more
            places.append(place)
        base, more = bind("packed", panel * (p.depth * self.width))
        statements += more

        def operands(d: Expr) -> tuple[list[Expr], list[Expr]]:
            a = [load(p.k.buffer, place + d * step) for place in places]
            b = [load(s.queries, lanes_at(base + d * self.width + j, self.lanes)) for j in self.vectors]
            return a, b

        accumulators, tile = accumulate(height, self.width, self.lanes, p.depth, operands)
        statements += tile
        for i, accumulator in enumerate(accumulators):
            for j in self.vectors:

                def element(
                    lane: Expr, registers: Registers, i: int = i, j: int = j, own: Buffer = accumulator
                ) -> Stmt:
                    variables = {
                        **self.bound,
                        p.key: start + row + i,
                        p.query: self._query(panel, j + lane),
                        p.score: load(own, j + lane),
                    }
                    what, (value,) = emit_program(p.modification, variables, registers)
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
            # Where nothing counts yet, 0: the difference of two infinities is no number.
            finite = registers.keep(
                tirx.Select(new > self.lowest, new, const_like(0.0, "float32")), statements
            )
            worth = exp_below_one(load(s.peaks, at) - finite, registers, statements)
            return seq(
                statements,
                store(factor, worth, own),
                store(total, load(s.totals, at) * worth, own),
                store(s.peaks, new, at),
                store(peak, finite, own),
            )

        return with_registers(self.lanes, element)

    def _powers(self, key: Expr, peak: Buffer, total: Buffer) -> Stmt:
        """One key's scores as powers, added to their sum."""
        scores = self.scratch.scores

        def element(lane: Expr, registers: Registers, j: int) -> Stmt:
            at, own = key * self.width + j + lane, j + lane
            statements: list[Stmt] = []
            value = exp_below_one(load(scores, at) - load(peak, own), registers, statements)
            return seq(statements, store(scores, value, at), store(total, load(total, own) + value, own))

        return seq(
            *(
                with_registers(self.lanes, lambda lane, r, j=j: element(lane, r, j))  # type: ignore[misc]
                for j in self.vectors
            )
        )

    def _weigh(
        self, panel: Expr, start: Expr, count: Expr, column: Expr, height: int, factor: Buffer
    ) -> Stmt:
        """``height`` columns of V, summed over the block of keys with the powers as weights."""
        p, s = self.p, self.scratch
        row, across = p.v.step(p.key), p.v.step(p.column)
        place, statements = bind("values", p.v.at({**self.bound, p.key: start, p.column: column}))
        base, more = bind("sums_start", (panel * p.value_depth + column) * self.width)
        statements += more

        def operands(t: Expr) -> tuple[list[Expr], list[Expr]]:
            a = [load(p.v.buffer, place + t * row + i * across) for i in range(height)]
            b = [load(s.scores, lanes_at(t * self.width + j, self.lanes)) for j in self.vectors]
            return a, b

        def begin(i: int, j: int) -> Expr:
            old = load(s.sums, lanes_at(base + i * self.width + j, self.lanes))
            return old * load(factor, lanes_at(j, self.lanes))

        accumulators, tile = accumulate(height, self.width, self.lanes, count, operands, begin)
        statements += tile
        for i, accumulator in enumerate(accumulators):
            for j in self.vectors:
                at = lanes_at(base + i * self.width + j, self.lanes)
                statements.append(store(s.sums, load(accumulator, lanes_at(j, self.lanes)), at))
        return seq(statements)

    def _end(self, panel: Expr) -> Stmt:
        """Divide by the sums of the powers, and store query by query."""
        p, s = self.p, self.scratch
        base = panel * self.width
        statements: list[Stmt] = []
        one_each = broadcast(const_like(1.0, "float32"), self.lanes)
        for j in self.vectors:
            at = lanes_at(base + j, self.lanes)
            total = load(s.totals, at)
            inverse = one_each / total
            if p.zero_masked:
                inverse = tirx.Select(total > self.zero, inverse, self.zero)
            statements.append(store(s.totals, inverse, at))

        def place(query: Expr | int, column: Expr) -> Expr:
            return p.out.at({**self.bound, p.query: self._query(panel, query), p.column: column})

        def square(column: Expr, j: int) -> Stmt:
            inner: list[Stmt] = []
            factor = vector_variable(load(s.totals, lanes_at(base + j, self.lanes)), self.lanes, inner)
            rows = []
            for i in range(self.lanes):
                at = (panel * p.value_depth + column + i) * self.width + j
                value = load(s.sums, lanes_at(at, self.lanes)) * factor
                rows.append(vector_variable(value, self.lanes, inner))
            for lane, vector in enumerate(turn(rows, "float32", self.lanes, inner)):
                inner.append(store(p.out.buffer, vector, lanes_at(place(j + lane, column), self.lanes)))
            return seq(inner)

        def one(d: Expr) -> Stmt:
            def element(lane: Expr) -> Stmt:
                value = load(s.sums, (panel * p.value_depth + d) * self.width + lane)
                return store(p.out.buffer, value * load(s.totals, base + lane), place(lane, d))

            return loop(self.width, element, "query")

        return seq(statements, self._squares(p.value_depth, p.out, square, one))
