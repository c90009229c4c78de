"""The softmax of rows of scores over pages of keys, kept up block by block of pages.

The online softmax of Milakov and Gimelshein ("Online normalizer calculation for softmax", 2018): the largest
score of each row so far, the sum of the powers under it, and the sums of the values weighted with them.
"""

from __future__ import annotations

from tvm import tirx

from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    bind,
    broadcast,
    const_like,
    i64,
    lanes_at,
    load,
    loop,
    seq,
    store,
)
from assay.compile.schedules.math import Registers, exp_below_one, vector_math, with_registers
from assay.compile.schedules.nest import vector_pieces
from assay.compile.schedules.paged_problem import PAGE_TOKENS
from assay.compile.schedules.paged_views import PagedViews
from assay.compile.schedules.register_tile import fold_lanes

__all__ = ["RowsInMemory"]


class RowsInMemory:
    """At most ``most`` rows of queries of one head of keys and values, and their scores with ``pages`` pages.

    ``queries``, ``sums`` ``[most, head_dim]``; ``scores`` ``[most, scores_width]``; ``peaks``, ``totals``
    ``[most]``: float32. ``planes`` ``[pages]``: the keys' places in the cache. ``memory``: declarations.
    """

    def __init__(self, views: PagedViews, most: int, pages: int) -> None:
        self.views, self.p, self.unit = views, views.problem, views.unit
        self.lanes, self.most, self.pages = self.unit.lanes(), most, pages
        self.scores_width = pages * PAGE_TOKENS
        dim = self.p.head_dim
        self.queries, one = allocate([most * dim], "float32", "queries")
        self.sums, two = allocate([most * dim], "float32", "sums")
        self.scores, three = allocate([most * self.scores_width], "float32", "scores")
        self.peaks, four = allocate([most], "float32", "peaks")
        self.totals, five = allocate([most], "float32", "totals")
        self.planes, six = allocate([pages], "int64", "planes", "local")
        self.memory: tuple[Stmt, ...] = (one, two, three, four, five, six)
        self.lowest = const_like(float("-inf"), "float32")

    def finish_scores(self, accumulator: Buffer, j: int, at: Expr, scales: Expr) -> Stmt:
        """A vector of scores, times the keys' scales and capped, where the problem says so."""
        factors, cap = self.views.scales, self.p.softcap

        def element(lane: Expr, registers: Registers) -> Stmt:
            value = load(accumulator, j + lane)
            if factors is not None:
                value = value * load(factors, scales + lane)
            statements: list[Stmt] = []
            if cap > 0:
                capped = tirx.tanh(value * const_like(1.0 / cap, "float32")) * const_like(cap, "float32")
                statements, value = vector_math(capped, registers)
            return seq(statements, store(self.scores, value, at + lane))

        return with_registers(self.lanes, element)

    def mask(self, token_in_span: Expr, column: Expr, start: Expr, token: Expr) -> Stmt:
        """Minus infinity for the keys of a page that a token does not see, for all its heads."""
        # Within a page both ends fit int32; the window may be any number.
        page = i64(PAGE_TOKENS)
        upper, one = bind("seen_end", tirx.Cast("int32", tirx.min(token + 1 - start, page)))
        low = tirx.max(token + 1 - self.views.window - start, i64(0))
        lower, two = bind("seen_begin", tirx.Cast("int32", tirx.min(low, page)))

        def member(g: Expr) -> Stmt:
            base, bound = bind("base", (token_in_span * self.p.group + g) * self.scores_width + column)

            def vector(j: int) -> Stmt:
                def element(lane: Expr, _: Registers) -> Stmt:
                    key = tirx.Cast("int32", j + lane)
                    value = load(self.scores, base + j + lane)
                    value = tirx.Select(key < upper, value, self.lowest)
                    value = tirx.Select(key >= lower, value, self.lowest)
                    return store(self.scores, value, base + j + lane)

                return with_registers(self.lanes, element)

            return seq(bound, *(vector(j) for j in range(0, PAGE_TOKENS, self.lanes)))

        return seq(one, two, loop(self.p.group, member, "member"))

    def powers(self, row: Expr, pages: Expr) -> Stmt:
        """One row's scores of a block as powers under the new maximum; what was summed before is rescaled."""
        base, statements = bind("base", row * self.scores_width)
        best, declaration = allocate([PAGE_TOKENS], "float32", "best", "local")
        total, more = allocate([PAGE_TOKENS], "float32", "total", "local")
        statements += [declaration, more]
        vectors = range(0, PAGE_TOKENS, self.lanes)
        zero = const_like(0.0, "float32")
        for j in vectors:
            at = lanes_at(j, self.lanes)
            statements += [
                store(best, broadcast(self.lowest, self.lanes), at),
                store(total, broadcast(zero, self.lanes), at),
            ]

        def look(page: Expr) -> Stmt:
            return seq(
                *(
                    store(
                        best,
                        tirx.max(
                            load(best, lanes_at(j, self.lanes)),
                            load(self.scores, lanes_at(base + page * PAGE_TOKENS + j, self.lanes)),
                        ),
                        lanes_at(j, self.lanes),
                    )
                    for j in vectors
                )
            )

        statements += [loop(pages, look, "page"), *fold_lanes(best, PAGE_TOKENS, tirx.max)]
        old, one = bind("old", load(self.peaks, row))
        peak, two = bind("peak", tirx.max(old, load(best, 0)))
        # Where nothing counts yet, 0: the difference of two infinities is no number.
        finite, three = bind("finite", tirx.Select(peak > self.lowest, peak, zero))
        statements += [*one, *two, *three, store(self.peaks, peak, row)]
        statements.append(loop(pages, lambda p: self._page_powers(base, p, finite, total), "page"))
        statements += fold_lanes(total, PAGE_TOKENS, lambda a, b: a + b)
        registers = Registers(1, i64(0))
        scalar: list[Stmt] = []
        power = exp_below_one(old - finite, registers, scalar)
        worth, four = bind("worth", power)
        statements += [*registers.declarations, *scalar, *four]
        statements.append(store(self.totals, load(self.totals, row) * worth + load(total, 0), row))

        def rescale(start: Expr, count: int, _: int) -> Stmt:
            at = lanes_at(row * self.p.head_dim + start, count)
            return store(self.sums, load(self.sums, at) * broadcast(worth, count), at)

        return seq(statements, vector_pieces(i64(self.p.head_dim), self.lanes, rescale))

    def _page_powers(self, base: Expr, page: Expr, peak: Expr, total: Buffer) -> Stmt:
        """Powers of one row's scores with a page, added to their sums; times the values' scales, if any."""
        factors = self.views.scales

        def vector(j: int) -> Stmt:
            def element(lane: Expr, registers: Registers) -> Stmt:
                at = base + page * PAGE_TOKENS + j + lane
                statements: list[Stmt] = []
                value = exp_below_one(load(self.scores, at) - peak, registers, statements)
                statements.append(store(total, load(total, j + lane) + value, j + lane))
                if factors is not None:
                    plane = load(self.planes, page) + self.p.kv_heads
                    value = value * load(factors, plane * PAGE_TOKENS + j + lane)
                return seq(statements, store(self.scores, value, at))

            return with_registers(self.lanes, element)

        return seq(*(vector(j) for j in range(0, PAGE_TOKENS, self.lanes)))
