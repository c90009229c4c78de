"""Rows of queries over the pages of one head of a cache: the loops inside a task of attention.

The rows are those of several tokens times the query heads that share the keys and values, so that a page is
read once for all of them. For each block of pages: scores on register tiles with the page as panel, masks in
the pages that need one, the online softmax of Milakov and Gimelshein (2018), and the page of values as panel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from assay.compile.schedules.ir import (
    CACHE_LINE,
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
    opaque,
    prefetch,
    seq,
    store,
)
from assay.compile.schedules.narrow import widened
from assay.compile.schedules.nest import vector_pieces
from assay.compile.schedules.paged_problem import PAGE_TOKENS
from assay.compile.schedules.paged_softmax import RowsInMemory
from assay.compile.schedules.paged_views import PagedViews
from assay.compile.schedules.register_tile import accumulate, row_tiles
from assay.compile.targets.target import VectorUnit

__all__ = ["PagedRows", "Span"]

# More rows than this read a page often enough to have it widened once, in a buffer.
_MOST_DIRECT_ROWS = 8
# Pages whose scores are computed before they become powers: few rows' scores of many fit L1.
_PAGES, _PAGES_OF_MANY_ROWS = 16, 4


@dataclass(frozen=True, kw_only=True)
class Span:
    """Rows of a sequence from ``first`` on, and its pages from ``page_begin`` to that before ``page_end``.

    ``begin``: the sequence's first row; ``past``: its tokens in the cache before.
    """

    sequence: Expr
    head: Expr
    begin: Expr
    past: Expr
    first: Expr
    count: Expr
    page_begin: Expr
    page_end: Expr


class PagedRows(RowsInMemory):
    """The loops for at most ``tokens`` rows of a sequence, or exactly so many, and their memory."""

    def __init__(self, views: PagedViews, tokens: int, *, exact: bool) -> None:
        problem = views.problem
        most = tokens * problem.group
        many = most > _MOST_DIRECT_ROWS
        super().__init__(views, most, _PAGES_OF_MANY_ROWS if many else _PAGES)
        self.exact, self.fetches = exact, exact and not many
        self.page, self.declarations = None, list(self.memory)
        self.panel_width = 2 * self.lanes if problem.head_dim % (2 * self.lanes) == 0 else problem.head_dim
        if many and problem.cache_dtype != "float32":
            size = self.pages * PAGE_TOKENS * problem.head_dim
            self.page, declaration = allocate([size], "float32", "page")
            self.declarations.append(declaration)

    def attend(self, span: Span) -> Stmt:
        """Sums of weighted values, maxima and sums of powers of the rows of ``span``, in this memory."""
        rows, statements = bind("rows", span.count * self.p.group)
        blocks = ceildiv(span.page_end - span.page_begin, self.pages)

        def block(b: Expr) -> Stmt:
            first, one = bind("first_page", span.page_begin + b * self.pages)
            count, two = opaque("pages", minimum(span.page_end - first, self.pages))
            return seq(
                one,
                two,
                loop(count, lambda p: self._score_page(span, first + p, p, rows), "page"),
                loop(rows, lambda m: self.powers(m, count), "row"),
                self._weigh_block(span, first, count, rows),
            )

        return seq(
            statements,
            loop(span.count, lambda r: self._begin(span, r), "token"),
            loop(blocks, block, "page_block"),
        )

    def _begin(self, span: Span, token: Expr) -> Stmt:
        """A token's queries, rotated and scaled; nothing summed yet."""
        p = self.p
        scale = const_like(p.scale, "float32")

        def member(g: Expr) -> Stmt:
            row, statements = bind("row", token * p.group + g)
            base, more = bind("base", row * p.head_dim)

            def put(start: Expr, count: int, value: Expr) -> Stmt:
                at = lanes_at(base + start, count)
                zero = broadcast(const_like(0.0, "float32"), count)
                return seq(
                    store(self.queries, value * broadcast(scale, count), at), store(self.sums, zero, at)
                )

            column = (span.head * p.group + g) * p.head_dim
            at, last = bind("at", span.begin + span.first + token)
            return seq(
                statements, more, last, self.views.head_row(at, column, put, turned=True),
                store(self.peaks, self.lowest, row), store(self.totals, const_like(0.0, "float32"), row),
            )  # fmt: skip

        return loop(p.group, member, "member")

    def _tiles(self, rows: Expr, tile: Callable[[Expr, int], Stmt]) -> Stmt:
        """All rows in tiles: equal ones where their number is known."""
        height = _most_rows(self.unit)
        if not self.exact:

            def bound(row: Expr, size: int) -> Stmt:
                first, statements = opaque("first_row", row)
                return seq(statements, tile(first, size))

            return row_tiles(rows, height, bound)
        count = -(-self.most // height)
        sizes = [self.most // count + (i < self.most % count) for i in range(count)]
        return seq(*(tile(i64(sum(sizes[:i])), size) for i, size in enumerate(sizes)))

    def _panel(self, offset: Expr, statements: list[Stmt]) -> tuple[Buffer, Expr]:
        """Where a page's elements are read: in the cache, or widened in ``page``."""
        if self.page is None:
            return self.views.cache, offset
        statements.append(self._widen(self.page, i64(0), offset))
        return self.page, i64(0)

    def _widen(self, target: Buffer, start: Expr, offset: Expr) -> Stmt:
        """The page at ``offset`` of the cache as float32, from ``start`` of ``target`` on."""

        def widen(v: Expr) -> Stmt:
            wide = widened(self.views.cache, offset + v * self.lanes, self.lanes, self.unit)
            return store(target, wide, lanes_at(start + v * self.lanes, self.lanes))

        return loop(PAGE_TOKENS * self.p.head_dim // self.lanes, widen, "vector")

    def _score_page(self, span: Span, number: Expr, page: Expr, rows: Expr) -> Stmt:
        """The scores of all rows with the keys of one page, ``page``-th of its block."""
        size = PAGE_TOKENS * self.p.head_dim
        plane, statements = bind("plane", self.views.plane(span.sequence, number, span.head))
        statements.append(store(self.planes, plane, page))
        offset, more = bind("keys", plane * size)
        statements += more
        panel, base = self._panel(offset, statements)
        column, more = bind("column", page * PAGE_TOKENS)
        scales = plane * PAGE_TOKENS
        statements += more
        values = offset + self.p.kv_heads * size
        statements.append(
            self._tiles(
                rows, lambda row, height: self._scores(row, height, panel, base, column, scales, values)
            )
        )
        start, more = bind("page_start", number * PAGE_TOKENS)
        token, last = bind("first_token", span.past + span.first)
        ahead = start + PAGE_TOKENS > token + 1
        behind = start < token + span.count - self.views.window
        hide = loop(span.count, lambda r: self.mask(r, column, start, token + r), "token")
        return seq(statements, more, last, if_then(tirx.Or(ahead, behind), hide))

    def _coming(self, span: Span, number: Expr, statements: list[Stmt]) -> Expr:
        """Where the keys are of the page at the place of ``number`` in the next block, or of the last one."""
        if not self.fetches:
            return i64(0)
        later, more = opaque("later", minimum(number + self.pages, span.page_end - 1))
        plane = self.views.plane(span.sequence, later, span.head)
        offset, last = bind("coming", plane * (PAGE_TOKENS * self.p.head_dim))
        statements += [*more, *last]
        return offset

    def _fetch(self, row: Expr, start: Expr, step: int, width: int) -> Callable[[Expr], list[Stmt]] | None:
        """What the first rows' tile does beside a step: ask for the same elements of a later page.

        Memory has pages in any order, so that the CPU does not see further than the page at work.
        """
        if not self.fetches or as_int(row) != 0:
            return None
        line = CACHE_LINE // {"float32": 4, "float16": 2, "int8": 1}[self.p.cache_dtype]
        return lambda k: [prefetch(self.views.cache, start + k * step + j) for j in range(0, width, line)]

    def _value_at(self, token: Expr, column: Expr) -> Expr:
        """Where an element of the widened values of a block lies: columns in panels, tokens inside."""
        width = self.panel_width
        panel = floordiv(column, width) * (self.pages * PAGE_TOKENS * width)
        return panel + token * width + floormod(column, width)

    def _widen_values(self, target: Buffer, page: Expr, offset: Expr) -> Stmt:
        """A page's values as float32, in panels."""
        dim, lanes = self.p.head_dim, self.lanes
        if dim == self.panel_width:
            return self._widen(target, page * (PAGE_TOKENS * dim), offset)

        def token(t: Expr) -> Stmt:
            def vector(v: Expr) -> Stmt:
                wide = widened(self.views.cache, offset + t * dim + v * lanes, lanes, self.unit)
                return store(target, wide, lanes_at(self._value_at(page * PAGE_TOKENS + t, v * lanes), lanes))

            return loop(dim // lanes, vector, "vector")

        return loop(PAGE_TOKENS, token, "token")

    def _scores(
        self, row: Expr, height: int, panel: Buffer, base: Expr, column: Expr, scales: Expr,
        values: Expr,
    ) -> Stmt:  # fmt: skip
        """``height`` rows' scores with a page's keys."""
        dim, lanes = self.p.head_dim, self.lanes
        width = _most_columns(self.unit, height, PAGE_TOKENS)
        statements: list[Stmt] = []
        for part in range(0, PAGE_TOKENS, width):

            def operands(d: Expr, part: int = part) -> tuple[list[Expr], list[Expr]]:
                a = [load(self.queries, (row + i) * dim + d) for i in range(height)]
                at = base + d * PAGE_TOKENS + part
                return a, [widened(panel, at + j, lanes, self.unit) for j in range(0, width, lanes)]

            accumulators, tile = accumulate(
                height, width, lanes, dim, operands, few_rows=height * lanes < width,
                beside=self._fetch(row, values + part, PAGE_TOKENS, width),
            )  # fmt: skip
            statements += tile
            for i, accumulator in enumerate(accumulators):
                for j in range(0, width, lanes):
                    at = (row + i) * self.scores_width + column + (part + j)
                    statements.append(self.finish_scores(accumulator, j, at, scales + (part + j)))
        return seq(statements)

    def _weigh_block(self, span: Span, first: Expr, count: Expr, rows: Expr) -> Stmt:
        """The values of a block of pages, weighted, added to all rows' sums.

        Where pages are widened first, they lie side by side then, and each sum is read and written once.
        """
        size = PAGE_TOKENS * self.p.head_dim
        end = span.past + span.first + span.count
        wide = self.page

        def page(p: Expr) -> Stmt:
            offset, statements = bind("values", (load(self.planes, p) + self.p.kv_heads) * size)
            if wide is not None:
                return seq(statements, self._widen_values(wide, p, offset))
            tokens, more = opaque("tokens", minimum(end - (first + p) * PAGE_TOKENS, PAGE_TOKENS))
            column, last = bind("column", p * PAGE_TOKENS)
            statements += [*more, *last]
            coming = self._coming(span, first + p, statements)
            return seq(statements, self._weigh(rows, self.views.cache, offset, column, tokens, coming))

        if wide is None:
            return loop(count, page, "page")
        tokens, statements = opaque("tokens", minimum(end - first * PAGE_TOKENS, count * PAGE_TOKENS))
        sums = self._weigh(rows, wide, i64(0), i64(0), tokens, i64(0))
        return seq(loop(count, page, "page"), statements, sums)

    def _weigh(self, rows: Expr, panel: Buffer, base: Expr, column: Expr, tokens: Expr, coming: Expr) -> Stmt:
        """Values from ``base`` of ``panel`` on, weighted by scores from ``column`` on, added to the sums.

        Of ``tokens`` tokens: what lies behind them in a page was never written.
        """
        p = self.p

        def panel_of(row: Expr, height: int, start: Expr, width: int) -> Stmt:
            lanes = min(width, self.lanes)

            def operands(t: Expr) -> tuple[list[Expr], list[Expr]]:
                a = [load(self.scores, (row + i) * self.scores_width + column + t) for i in range(height)]
                if self.page is not None:
                    places = [self._value_at(t, start + j) for j in range(0, width, lanes)]
                else:
                    places = [base + t * p.head_dim + start + j for j in range(0, width, lanes)]
                return a, [widened(panel, at, lanes, self.unit) for at in places]

            def place(i: int, j: int) -> Expr:
                return lanes_at((row + i) * p.head_dim + start + j, lanes)

            sums, done = accumulate(
                height,
                width,
                lanes,
                tokens,
                operands,
                lambda i, j: load(self.sums, place(i, j)),
                few_rows=height * lanes < width,
                beside=self._fetch(row, coming + start, p.head_dim, width),
            )
            for i, total in enumerate(sums):
                for j in range(0, width, lanes):
                    done.append(store(self.sums, load(total, lanes_at(j, lanes)), place(i, j)))
            return seq(done)

        def tile(row: Expr, height: int) -> Stmt:
            width = _most_columns(self.unit, height, p.head_dim)
            whole = p.head_dim // width
            panels = loop(whole, lambda c: panel_of(row, height, c * width, width), "panel")
            rest = vector_pieces(
                i64(p.head_dim - whole * width), self.lanes,
                lambda start, count, _: panel_of(row, height, start + whole * width, count),
            )  # fmt: skip
            return seq(panels, rest)

        return self._tiles(rows, tile)

    def finish(self, span: Span) -> Stmt:
        """The output of the rows of ``span``: sums of weighted values over sums of powers."""
        p = self.p
        width = p.heads * p.head_dim

        def row(m: Expr) -> Stmt:
            token, one = bind("token", floordiv(m, p.group))
            member, two = bind("member", floormod(m, p.group))
            column = (span.head * p.group + member) * p.head_dim
            base, three = bind("out", (span.begin + span.first + token) * width + column)
            inverse, four = bind("inverse", const_like(1.0, "float32") / load(self.totals, m))

            def divide(start: Expr, count: int, _: int) -> Stmt:
                value = load(self.sums, lanes_at(m * p.head_dim + start, count))
                return store(
                    self.views.output, value * broadcast(inverse, count), lanes_at(base + start, count)
                )

            return seq(one, two, three, four, vector_pieces(i64(p.head_dim), self.lanes, divide))

        return loop(span.count * p.group, row, "row")


def _most_accumulators(unit: VectorUnit) -> int:
    """Vectors of sums that stay in registers beside the operands."""
    return unit.registers - 4 if unit.fma else unit.registers // 2


def _most_rows(unit: VectorUnit) -> int:
    """Rows of a tile of two vectors."""
    return _most_accumulators(unit) // 2


def _most_columns(unit: VectorUnit, rows: int, columns: int) -> int:
    """Columns of a tile of ``rows``: as many vectors, a power of two, as there are accumulators for."""
    width = unit.lanes()
    while 2 * width <= columns and rows * 2 * width <= _most_accumulators(unit) * unit.lanes():
        width *= 2
    return width
