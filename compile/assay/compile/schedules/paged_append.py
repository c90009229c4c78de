"""New keys and values into the pages of a cache: a key is a column of its page, a value a row."""

from __future__ import annotations

from collections.abc import Callable

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
    parallel,
    seq,
    store,
)
from assay.compile.schedules.narrow import LARGEST_INT8, narrowed
from assay.compile.schedules.nest import vector_pieces
from assay.compile.schedules.paged_problem import PAGE_TOKENS
from assay.compile.schedules.paged_views import PagedViews, page_of
from assay.compile.schedules.register_tile import fold_lanes

__all__ = ["emit_append"]

# Rows that one task writes: as many as a page holds, so that few pages are shared between threads.
_ROWS = PAGE_TOKENS
# Scalar operations for each element that is written.
_OPERATIONS = 4
# Values of a smaller scale are all but zero: its inverse must not overflow.
_LEAST_SCALE = 1e-30


def emit_append(views: PagedViews, context: ScheduleContext) -> Stmt:
    """All rows' keys, rotated, and values into the cache; shared between threads where they are many."""
    p = views.problem
    tokens = i64(views.buffers.tokens)
    chunks = ceildiv(tokens, _ROWS)

    def task(t: Expr) -> Stmt:
        head, first = bind("head", floormod(t, p.kv_heads))
        chunk, second = bind("chunk", floordiv(t, p.kv_heads))
        return seq(
            first, second, _Rows(views, head).emit(chunk * _ROWS, minimum(tokens, (chunk + 1) * _ROWS))
        )

    def tasks(*, serial: bool) -> Stmt:
        return parallel(chunks * p.kv_heads, task, "append", serial=serial)

    small = context.is_small_at_run_time(tokens * (2 * p.kv_heads * p.head_dim * _OPERATIONS))
    return if_then(small, tasks(serial=True), tasks(serial=False))


class _Rows:
    """Consecutive rows of one head of keys and values."""

    def __init__(self, views: PagedViews, head: Expr) -> None:
        self.views, self.head = views, head
        p = views.problem
        self.sequence, one = allocate([1], "int64", "sequence", "local")
        self.row, two = allocate([p.head_dim], "float32", "row", "local")
        self.narrow, three = allocate([p.head_dim], p.cache_dtype, "narrow", "local")
        self.declarations: list[Stmt] = [one, two, three]

    def emit(self, begin: Expr, end: Expr) -> Stmt:
        """Rows ``begin`` to ``end`` less one, of whatever sequences."""
        offsets, zero = self.views.buffers.sequence_offsets, i64(0)

        def row(i: Expr) -> Stmt:
            at, statements = bind("at", begin + i)
            sequence = load(self.sequence, 0)
            ends = i64(load(offsets, sequence + 1))
            statements.append(tirx.While(ends <= at, store(self.sequence, load(self.sequence, 0) + 1, 0)))
            s, more = bind("sequence", load(self.sequence, 0))
            token, last = bind("token", self.views.past(s) + at - self.views.begin(s))
            return seq(statements, more, last, self._write(s, at, token))

        return seq(self.declarations, store(self.sequence, zero, 0), loop(end - begin, row, "row"))

    def _write(self, sequence: Expr, at: Expr, token: Expr) -> Stmt:
        p = self.views.problem
        plane, statements = bind("plane", self.views.plane(sequence, page_of(token), self.head))
        slot, more = bind("slot", floormod(token, PAGE_TOKENS))
        size = PAGE_TOKENS * p.head_dim
        heads = p.heads + self.head
        keys, last = bind("keys", plane * size + slot)
        values, end = bind("values", (plane + p.kv_heads) * size + slot * p.head_dim)

        def column(j: Expr) -> Stmt:
            return store(self.views.cache, load(self.narrow, j), keys + j * PAGE_TOKENS)

        return seq(
            statements, more, last, end,
            self._narrowed(at, heads * p.head_dim, plane * PAGE_TOKENS + slot, self._keep, turned=True),
            loop(p.head_dim, column, "column"),
            self._narrowed(
                at, (heads + p.kv_heads) * p.head_dim, (plane + p.kv_heads) * PAGE_TOKENS + slot,
                lambda start, lanes, value: store(self.views.cache, value, lanes_at(values + start, lanes)),
                turned=False,
            ),
        )  # fmt: skip

    def _keep(self, start: Expr, lanes: int, value: Expr) -> Stmt:
        return store(self.narrow, value, lanes_at(start, lanes))

    def _narrowed(
        self, at: Expr, column: Expr, scale_at: Expr, put: Callable[[Expr, int, Expr], Stmt], *, turned: bool
    ) -> Stmt:
        """A head of a row in the cache's dtype, given to ``put``; its scale to where ``scale_at`` says."""
        views, unit = self.views, self.views.unit
        dtype = views.problem.cache_dtype
        if views.scales is None:
            return views.head_row(
                at, column, lambda s, n, v: put(s, n, narrowed(v, dtype, n, unit)), turned=turned
            )
        lanes = unit.lanes()
        zero, one = const_like(0.0, "float32"), const_like(1.0, "float32")
        largest, declaration = allocate([lanes], "float32", "largest", "local")
        statements: list[Stmt] = [declaration, store(largest, broadcast(zero, lanes), lanes_at(0, lanes))]

        def look(start: Expr, count: int, value: Expr) -> Stmt:
            place, front = lanes_at(start, count), lanes_at(0, count)
            kept = load(self.row, place)
            magnitude = tirx.max(kept, broadcast(zero, count) - kept)
            return seq(
                store(self.row, value, place),
                store(largest, tirx.max(load(largest, front), magnitude), front),
            )

        statements.append(views.head_row(at, column, look, turned=turned))
        statements += fold_lanes(largest, lanes, tirx.max)
        scale, more = bind("scale", load(largest, 0) * const_like(1.0 / LARGEST_INT8, "float32"))
        inverse, last = bind("inverse", one / tirx.max(scale, const_like(_LEAST_SCALE, "float32")))
        statements += [*more, store(views.scales, scale, scale_at), *last]

        def narrow(start: Expr, count: int, _: int) -> Stmt:
            value = load(self.row, lanes_at(start, count)) * broadcast(inverse, count)
            return put(start, count, narrowed(value, dtype, count, unit))

        return seq(statements, vector_pieces(i64(views.problem.head_dim), lanes, narrow))
