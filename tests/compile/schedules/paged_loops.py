"""Attention over a paged cache as plain loops: one task a sequence and head of keys and values."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    bind,
    const_like,
    floordiv,
    floormod,
    i64,
    load,
    loop,
    parallel,
    seq,
    store,
)
from assay.compile.schedules.paged_problem import PAGE_TOKENS, PagedBuffers, PagedProblem
from assay.compile.schedules.recurrent_kernel import SCHEDULED

__all__ = ["paged_loops"]

_LARGEST = 127.0


def paged_loops(problem: PagedProblem) -> Expr:
    """A PrimFunc of the parameters of ``PagedBuffers``: writes the new keys and values, then attends.

    Softmax is computed in one pass over the keys with a running maximum (Milakov and Gimelshein, 2018).
    """
    buffers = PagedBuffers.declare(problem)
    body = parallel(buffers.sequences * problem.kv_heads, lambda task: _task(problem, buffers, task), "task")
    function = tirx.PrimFunc(buffers.params(), body)
    for key, value in (("global_symbol", "paged_attention"), ("tirx.noalias", True), (SCHEDULED, True)):
        function = function.with_attr(key, value)
    return function


def _task(problem: PagedProblem, b: PagedBuffers, task: Expr) -> Stmt:
    s, one = bind("sequence", floordiv(task, problem.kv_heads))
    head, two = bind("head", floormod(task, problem.kv_heads))
    begin, three = bind("begin", i64(load(b.sequence_offsets, s)))
    end, four = bind("end", i64(load(b.sequence_offsets, s + 1)))
    past, five = bind("past", i64(load(b.past_lengths, s)))
    row, allocation = allocate([problem.head_dim], "float32", "row")
    loops = _Loops(problem, b, s, head, begin, past, row)
    rows = end - begin
    append = loop(rows, loops.append, "new")
    attend = loop(problem.group, lambda q: loop(rows, lambda i: loops.attend(q, i), "query"), "member")
    return seq(one, two, three, four, five, allocation, append, attend)


class _Loops:
    """The loops of one sequence and one head of keys and values."""

    def __init__(
        self, problem: PagedProblem, buffers: PagedBuffers, sequence: Expr, head: Expr, begin: Expr,
        past: Expr, row: Buffer,
    ) -> None:  # fmt: skip
        self.p, self.b, self.s, self.head = problem, buffers, sequence, head
        self.begin, self.past, self.row = begin, past, row
        self.layer, self.window = (i64(load(buffers.place, i)) for i in range(2))

    def _page(self, token: Expr) -> Expr:
        return i64(load(self.b.page_table, self.s, tirx.floordiv(token, i64(PAGE_TOKENS))))

    def _slot(self, token: Expr) -> Expr:
        return tirx.floormod(token, i64(PAGE_TOKENS))

    def _read_row(self, at: Expr, column: Expr, *, turned: bool) -> Stmt:
        """``row`` = a head of a token, from ``column`` of qkv, with its rotary embedding."""
        dim, half = self.p.head_dim, self.p.rotary_dim // 2
        copy = loop(dim, lambda j: store(self.row, load(self.b.qkv, 0, at, column + j), j), "j")
        if not turned or half == 0:
            return copy
        assert self.b.cosines is not None
        assert self.b.sines is not None
        last = i64(self.p.positions - 1)
        position = tirx.max(tirx.min(load(self.b.position_ids, 0, at), last), i64(0))
        where, bound = bind("position", position)

        def turn(j: Expr) -> Stmt:
            x, first = bind("x", load(self.row, j))
            y, second = bind("y", load(self.row, j + half))
            cosine, sine = load(self.b.cosines, where, j), load(self.b.sines, where, j)
            return seq(
                first, second,
                store(self.row, x * cosine - y * sine, j), store(self.row, x * sine + y * cosine, j + half),
            )  # fmt: skip

        return seq(copy, bound, loop(half, turn, "j"))

    def append(self, i: Expr) -> Stmt:
        """Write key and value of new token ``i`` of the sequence into their page."""
        at, token = self.begin + i, self.past + i
        page, bound = bind("page", self._page(token))
        slot, second = bind("slot", self._slot(token))
        heads, dim = self.p.heads + self.head, self.p.head_dim
        planes = [
            (0, heads * dim, lambda j: j * PAGE_TOKENS + slot),
            (1, (heads + self.p.kv_heads) * dim, lambda j: slot * dim + j),
        ]
        writes = [
            seq(self._read_row(at, column, turned=plane == 0), self._write_row(page, plane, slot, place))
            for plane, column, place in planes
        ]
        return seq(bound, second, *writes)

    def _write_row(self, page: Expr, plane: int, slot: Expr, place: Callable[[Expr], Expr]) -> Stmt:
        """Store ``row`` in the cache, rounded to its dtype."""
        dtype = self.p.cache_dtype

        def put(value: Callable[[Expr], Expr]) -> Stmt:
            return loop(
                self.p.head_dim,
                lambda j: store(self.b.cache, value(j), page, self.layer, plane, self.head, place(j)),
                "j",
            )

        if self.b.scales is None:
            return put(
                lambda j: tirx.Cast(dtype, load(self.row, j)) if dtype != "float32" else load(self.row, j)
            )
        most, allocation = allocate([1], "float32", "most")
        zero = const_like(0.0, "float32")
        grow = loop(
            self.p.head_dim,
            lambda j: store(most, tirx.max(load(most, 0), tirx.abs(load(self.row, j))), 0),
            "j",
        )
        scale, bound = bind("scale", load(most, 0) / _LARGEST)
        inverse, second = bind("inverse", tirx.Select(scale > zero, const_like(1.0, "float32") / scale, zero))
        keep = store(self.b.scales, scale, page, self.layer, plane, self.head, slot)
        write = put(lambda j: tirx.Cast("int8", tirx.round(load(self.row, j) * inverse)))
        return seq(allocation, store(most, zero, 0), grow, bound, second, keep, write)

    def _cached(self, page: Expr, plane: int, slot: Expr, place: Expr) -> Expr:
        value = load(self.b.cache, page, self.layer, plane, self.head, place)
        value = value if self.p.cache_dtype == "float32" else tirx.Cast("float32", value)
        if self.b.scales is None:
            return value
        return value * load(self.b.scales, page, self.layer, plane, self.head, slot)

    def attend(self, member: Expr, i: Expr) -> Stmt:
        """The output of new token ``i`` for one of the query heads that share keys and values."""
        dim = self.p.head_dim
        at, token = self.begin + i, self.past + i
        column = (self.head * self.p.group + member) * dim
        state, one = allocate([3], "float32", "state")  # the running maximum, the sum, the score
        total, two = allocate([dim], "float32", "total")
        zero = const_like(0.0, "float32")
        start = seq(
            store(state, const_like(-3.0e38, "float32"), 0),
            store(state, zero, 1),
            loop(dim, lambda j: store(total, zero, j), "j"),
        )
        first, bound = bind("first", tirx.max(token - self.window + 1, i64(0)))
        keys = loop(token - first + 1, lambda t: self._key(first + t, state, total), "key")
        end = loop(
            dim, lambda j: store(self.b.output, load(total, j) / load(state, 1), 0, at, column + j), "j"
        )
        return seq(one, two, self._read_row(at, column, turned=True), start, bound, keys, end)

    def _key(self, token: Expr, state: Buffer, total: Buffer) -> Stmt:
        page, bound = bind("page", self._page(token))
        slot, second = bind("slot", self._slot(token))
        dim = self.p.head_dim
        product = loop(
            dim,
            lambda j: store(
                state,
                load(state, 2) + load(self.row, j) * self._cached(page, 0, slot, j * PAGE_TOKENS + slot),
                2,
            ),
            "j",
        )
        score = load(state, 2) * const_like(self.p.scale, "float32")
        if self.p.softcap > 0:
            cap = const_like(self.p.softcap, "float32")
            score = tirx.tanh(score / cap) * cap
        value, third = bind("score", score)
        most, fourth = bind("most", tirx.max(load(state, 0), value))
        shrink, fifth = bind("shrink", tirx.exp(load(state, 0) - most))
        weight, sixth = bind("weight", tirx.exp(value - most))
        add = loop(
            dim,
            lambda j: store(
                total, load(total, j) * shrink + weight * self._cached(page, 1, slot, slot * dim + j), j
            ),
            "j",
        )
        return seq(
            bound, second, store(state, const_like(0.0, "float32"), 2), product, third, fourth, fifth, sixth,
            store(state, most, 0), store(state, load(state, 1) * shrink + weight, 1), add,
        )  # fmt: skip
