"""Causal attention of the rows of several sequences over a paged cache, which it writes first.

A task is a sequence, a head of keys and values, and a block of rows; a row alone over many pages is shared
between tasks by pages, whose results are combined afterwards (Dao et al., "Flash-Decoding", 2023). The loops
inside a task are in ``paged_rows.py``, those that write the cache in ``paged_append.py``.
"""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx

from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    allocate,
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
    parallel,
    seq,
    store,
)
from assay.compile.schedules.math import Registers, exp_below_one
from assay.compile.schedules.nest import vector_pieces
from assay.compile.schedules.paged_append import emit_append
from assay.compile.schedules.paged_problem import GATHERED, PagedBuffers, PagedProblem
from assay.compile.schedules.paged_rows import PagedRows, Span
from assay.compile.schedules.paged_views import PagedViews, page_of
from assay.compile.schedules.recurrent_kernel import SCHEDULED

__all__ = ["paged_attention"]

# Rows of a task times the heads of a group: a page is read once for all of them.
_ROWS = 48
# Tasks below which a row's pages are shared, and the fewest pages of a share.
_TASKS, _FEWEST_PAGES = 64, 16
# Multiply-adds that take as long as one of the operations that the cost rule counts.
_MULTIPLY_ADDS = 4


def paged_attention(problem: PagedProblem, context: ScheduleContext) -> Expr:
    """A PrimFunc of the parameters of ``PagedBuffers``: writes the new keys and values, then attends."""
    buffers = PagedBuffers.declare(problem)
    views = PagedViews.of(problem, context.unit, buffers)
    body = seq(list(views.declarations), emit_append(views, context), _Tasks(views, context).emit())
    function = tirx.PrimFunc(buffers.params(), body)
    for key, value in (("global_symbol", "paged_attention"), ("tirx.noalias", True), (SCHEDULED, True)):
        function = function.with_attr(key, value)
    return function.with_attr(GATHERED, buffers.gathered)


class _Tasks:
    def __init__(self, views: PagedViews, context: ScheduleContext) -> None:
        self.views, self.context, self.p = views, context, views.problem
        self.sequences = i64(views.buffers.sequences)
        self.block = max(_ROWS // self.p.group, 1)

    def emit(self) -> Stmt:
        """Serial for little work on single rows; else tasks in the order of sequences."""
        statements, longest, work, base = self._count()
        alone = tirx.And(longest <= 1, self.context.is_small_at_run_time(work))
        return seq(statements, if_then(alone, self._serial(), self._parallel(base)))

    def _count(self) -> tuple[list[Stmt], Expr, Expr, Expr]:
        """Rows of the longest sequence, operations of all, and tasks where no row's pages are shared."""
        counts, declaration = allocate([3], "int64", "counts", "local")

        def add(s: Expr) -> Stmt:
            rows, one = bind("rows", self.views.rows(s))
            keys, two = bind("keys", tirx.min(self.views.past(s) + rows, self.views.window + rows))
            blocks = ceildiv(rows, self.block)
            return seq(
                one,
                two,
                store(counts, tirx.max(load(counts, 0), rows), 0),
                store(counts, load(counts, 1) + rows * keys, 1),
                store(counts, load(counts, 2) + blocks * self.p.kv_heads, 2),
            )

        statements = [declaration, *(store(counts, i64(0), i) for i in range(3))]
        statements.append(loop(self.sequences, add, "sequence"))
        longest, one = bind("longest", load(counts, 0))
        each = self.p.heads * self.p.head_dim * 2
        work, two = bind("work", floordiv(load(counts, 1) * each, _MULTIPLY_ADDS))
        base, three = bind("base", load(counts, 2))
        return [*statements, *one, *two, *three], longest, work, base

    def _pages(self, past: Expr, first: Expr, count: Expr) -> tuple[Expr, Expr]:
        """The first page that rows need, and the one behind the last."""
        token = past + first
        start = tirx.max(token + 1 - self.views.window, i64(0))
        return page_of(start), page_of(token + count - 1) + 1

    def _serial(self) -> Stmt:
        """Sequences of one row each, or of none, one after the other."""
        rows = PagedRows(self.views, 1, exact=True)

        def sequence(s: Expr) -> Stmt:
            span, statements = self._single(s)

            def head(h: Expr) -> Stmt:
                own = replace(span, head=h)
                return seq(rows.attend(own), rows.finish(own))

            body = seq(statements, loop(self.p.kv_heads, head, "head"))
            return if_then(self.views.rows(s) > 0, body)

        return seq(rows.declarations, loop(self.sequences, sequence, "sequence"))

    def _single(self, sequence: Expr) -> tuple[Span, list[Stmt]]:
        """The one row of a sequence over all its pages; the head is still to be said."""
        begin, one = bind("begin", self.views.begin(sequence))
        past, two = bind("past", self.views.past(sequence))
        first, last = self._pages(past, i64(0), i64(1))
        page_begin, three = opaque("page_begin", first)
        page_end, four = opaque("page_end", last)
        span = Span(
            sequence=sequence, head=i64(0), begin=begin, past=past, first=i64(0), count=i64(1),
            page_begin=page_begin, page_end=page_end,
        )  # fmt: skip
        return span, [*one, *two, *three, *four]

    def _shares(self, pages: Expr, room: Expr) -> Expr:
        """Between how many tasks a row's pages are shared."""
        return tirx.max(tirx.min(room, ceildiv(pages, _FEWEST_PAGES)), i64(1))

    def _parallel(self, base: Expr) -> Stmt:
        """All tasks, shared between threads."""
        room, statements = bind("room", tirx.max(tirx.floordiv(i64(_TASKS), tirx.max(base, i64(1))), i64(1)))
        firsts, declaration = allocate([self.sequences + 1], "int64", "firsts")
        shares, more = allocate([self.sequences], "int64", "shares")

        def plan(s: Expr) -> Stmt:
            rows, one = bind("rows", self.views.rows(s))
            begin, end = self._pages(self.views.past(s), i64(0), i64(1))
            own, two = bind("own", self._shares(end - begin, room))
            parts = tirx.Select(tirx.EQ(rows, i64(1)), own, ceildiv(rows, self.block))
            after = load(firsts, s) + parts * self.p.kv_heads
            return seq(one, two, store(shares, own, s), store(firsts, after, s + 1))

        statements += [declaration, more, store(firsts, i64(0), 0), loop(self.sequences, plan, "sequence")]
        count, more = bind("tasks", load(firsts, self.sequences))
        statements += more
        size = self.p.group * (self.p.head_dim + 2)
        partial, more = allocate([_TASKS * size], "float32", "partial")
        statements += [more]
        found, declared = allocate([1], "int64", "found", "local")

        def task(t: Expr) -> Stmt:
            ends = load(firsts, load(found, 0) + 1)
            search = tirx.While(ends <= t, store(found, load(found, 0) + 1, 0))
            s, one = bind("sequence", load(found, 0))
            part, two = bind("part", t - load(firsts, s))
            h, three = bind("head", floormod(part, self.p.kv_heads))
            number, four = bind("number", floordiv(part, self.p.kv_heads))
            share, five = bind("share", load(shares, s))
            single = self._share(s, h, number, share, partial, t * size)
            body = if_then(tirx.EQ(self.views.rows(s), i64(1)), single, self._many(s, h, number))
            return seq(declared, store(found, i64(0), 0), search, one, two, three, four, five, body)

        statements += [
            parallel(count, task, "task"),
            if_then(room > 1, self._combine(firsts, shares, partial, size)),
        ]
        return seq(statements)

    def _share(self, s: Expr, head: Expr, number: Expr, share: Expr, partial: Expr, slot: Expr) -> Stmt:
        """A row over its ``number``-th share of the pages; kept in ``partial`` where there are several."""
        rows = PagedRows(self.views, 1, exact=True)
        whole, statements = self._single(s)
        each, more = opaque("each", tirx.floordiv(whole.page_end - whole.page_begin + share - 1, share))
        begin, one = opaque("share_begin", whole.page_begin + number * each)
        end, two = opaque("share_end", tirx.min(begin + each, whole.page_end))
        span = Span(
            sequence=s, head=head, begin=whole.begin, past=whole.past, first=i64(0), count=i64(1),
            page_begin=begin, page_end=end,
        )  # fmt: skip
        dim, group, lanes = self.p.head_dim, self.p.group, self.views.unit.lanes()
        keep: list[Stmt] = []
        keep.append(
            vector_pieces(
                i64(group * dim), lanes,
                lambda at, n, _: store(partial, load(rows.sums, lanes_at(at, n)), lanes_at(slot + at, n)),
            )
        )  # fmt: skip
        for m in range(group):
            keep.append(store(partial, load(rows.peaks, m), slot + (group * dim + m)))
            keep.append(store(partial, load(rows.totals, m), slot + (group * (dim + 1) + m)))
        return seq(
            statements, more, one, two, rows.declarations, rows.attend(span),
            if_then(share > 1, seq(keep), rows.finish(span)),
        )  # fmt: skip

    def _many(self, s: Expr, head: Expr, number: Expr) -> Stmt:
        """A block of rows over all pages that they see."""
        rows = PagedRows(self.views, self.block, exact=False)
        begin, statements = bind("begin", self.views.begin(s))
        past, one = bind("past", self.views.past(s))
        total, two = bind("total", self.views.rows(s))
        blocks = ceildiv(total, self.block)
        # Late rows see more keys than early ones: taken in turn, any run of blocks is about equal work.
        half = floordiv(number, 2)
        which = tirx.Select(tirx.EQ(floormod(number, 2), i64(0)), blocks - 1 - half, half)
        first, three = opaque("first", which * self.block)
        count, four = opaque("count", minimum(total - first, self.block))
        page_begin, page_end = self._pages(past, first, count)
        start, five = opaque("page_begin", page_begin)
        stop, six = opaque("page_end", page_end)
        span = Span(
            sequence=s, head=head, begin=begin, past=past, first=first, count=count,
            page_begin=start, page_end=stop,
        )  # fmt: skip
        return seq(
            statements, one, two, three, four, five, six, rows.declarations, rows.attend(span),
            rows.finish(span),
        )  # fmt: skip

    def _combine(self, firsts: Expr, shares: Expr, partial: Expr, size: int) -> Stmt:
        """The rows whose pages were shared: the shares' sums under the largest of their maxima."""
        p, lanes = self.p, self.views.unit.lanes()
        group, dim = p.group, p.head_dim
        sums, one = allocate([dim], "float32", "combined", "local")
        state, two = allocate([2], "float32", "state", "local")
        zero = const_like(0.0, "float32")

        def row(s: Expr, h: Expr, g: Expr) -> Stmt:
            share, statements = bind("share", load(shares, s))
            base, more = bind("slots", (load(firsts, s) + h) * size)
            step = p.kv_heads * size

            def peak(i: Expr) -> Expr:
                return load(partial, base + i * step + group * dim + g)

            def add(i: Expr) -> Stmt:
                registers = Registers(1, i64(0))
                own: list[Stmt] = []
                worth, bound = bind("worth", exp_below_one(peak(i) - load(state, 0), registers, own))
                part = load(partial, base + i * step + group * (dim + 1) + g)
                own += [*bound, store(state, load(state, 1) + part * worth, 1)]

                def weigh(start: Expr, n: int, _: int) -> Stmt:
                    at = lanes_at(base + i * step + g * dim + start, n)
                    value = load(sums, lanes_at(start, n)) + load(partial, at) * broadcast(worth, n)
                    return store(sums, value, lanes_at(start, n))

                return seq(registers.declarations, own, vector_pieces(i64(dim), lanes, weigh))

            statements += [*more, store(state, peak(i64(0)), 0), store(state, zero, 1)]
            statements.append(
                loop(share, lambda i: store(state, tirx.max(load(state, 0), peak(i)), 0), "part")
            )
            clear = vector_pieces(
                i64(dim), lanes, lambda at, n, _: store(sums, broadcast(zero, n), lanes_at(at, n))
            )
            statements.append(clear)
            statements.append(loop(share, add, "part"))
            inverse, last = bind("inverse", const_like(1.0, "float32") / load(state, 1))
            statements += last
            out, last = bind("out", (self.views.begin(s) * p.heads + h * group + g) * dim)
            statements += last

            def divide(start: Expr, n: int, _: int) -> Stmt:
                value = load(sums, lanes_at(start, n)) * broadcast(inverse, n)
                return store(self.views.output, value, lanes_at(out + start, n))

            return seq(statements, vector_pieces(i64(dim), lanes, divide))

        def sequence(s: Expr) -> Stmt:
            heads = loop(p.kv_heads, lambda h: loop(group, lambda g: row(s, h, g), "member"), "head")
            several = tirx.And(tirx.EQ(self.views.rows(s), i64(1)), load(shares, s) > 1)
            return if_then(several, heads)

        return seq(one, two, loop(self.sequences, sequence, "sequence"))
