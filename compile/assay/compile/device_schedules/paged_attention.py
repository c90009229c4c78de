"""Attention over a paged cache on a device, in kernels of at most eight buffers, which WebGPU has.

Where a model has rotary embedding, one turns heads by their positions; one writes new keys and values; one
attends.

A group of threads computes one row of one query head. Each thread goes through every n-th key with a running
maximum (Milakov and Gimelshein, 2018); then the threads' results are combined under the largest maximum, as
in Dao et al., "Flash-Decoding", 2023. Nothing depends on how many threads run in lockstep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from assay.compile.device_schedules.threads import barrier, launch, local, marked, shared
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    bind,
    ceildiv,
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    load,
    loop,
    seq,
    store,
)
from assay.compile.schedules.paged_problem import PAGE_TOKENS, PagedBuffers, PagedProblem

__all__ = ["device_paged_attention"]

_LARGEST_INT8 = 127.0
_APPEND_THREADS = 64
_MOST_THREADS = 64
# Of one group, less than what every device has: WebGPU promises 16 KiB.
_SHARED_BYTES = 12 * 1024


def device_paged_attention(problem: PagedProblem) -> Any:
    """A scheduled PrimFunc of the parameters of ``PagedBuffers``."""
    buffers = PagedBuffers.declare(problem)
    kernels = _Kernels(problem, buffers)
    return marked(
        buffers.params(), seq(kernels.turn(), kernels.append(), kernels.attend()), "paged_attention"
    )


class _Kernels:
    def __init__(self, problem: PagedProblem, buffers: PagedBuffers) -> None:
        self.p, self.b = problem, buffers
        self.tokens = i64(buffers.tokens)
        self.zero = const_like(0.0, "float32")
        # Queries, keys and values of all rows as they are used: memory of the call where heads are turned.
        self.heads = buffers.qkv
        if problem.rotary_dim:
            shape = [i64(1), self.tokens, i64(problem.columns)]
            self.heads = tirx.decl_buffer(shape, "float32", name="turned")

    # Which sequence a row is of, and where its tokens lie.

    def _sequence(self, at: Expr, found: Buffer) -> Stmt:
        """Let ``found[0]`` be the sequence of row ``at``."""
        ends = load(self.b.sequence_offsets, i64(load(found, 0)) + 1)
        step = store(found, load(found, 0) + 1, 0)
        return seq(store(found, tirx.const(0, "int32"), 0), tirx.While(i64(ends) <= at, step))

    def _token(self, sequence: Expr, at: Expr) -> Expr:
        begin = i64(load(self.b.sequence_offsets, sequence))
        return i64(load(self.b.past_lengths, sequence)) + at - begin

    def _page(self, sequence: Expr, token: Expr) -> Expr:
        return i64(load(self.b.page_table, sequence, floordiv(token, PAGE_TOKENS)))

    def _layer(self) -> Expr:
        return i64(load(self.b.place, 0))

    def _read_row(self, row: Buffer, at: Expr, column: Expr) -> Stmt:
        """``row`` = a head of a token, from ``column`` on."""
        return loop(self.p.head_dim, lambda j: store(row, load(self.heads, 0, at, column + j), j), "j")

    # The first kernel.

    def turn(self) -> list[Stmt]:
        """Write ``heads``, with rotary embedding: a thread for each row and head. Nothing without such."""
        p, cosines, sines = self.p, self.b.cosines, self.b.sines
        if cosines is None or sines is None:
            return []
        every = p.heads + 2 * p.kv_heads
        tasks = self.tokens * every

        def thread(group: Expr, lane: Expr) -> Stmt:
            task, one = bind("task", group * _APPEND_THREADS + lane)
            at, two = bind("at", floordiv(task, every))
            head, three = bind("head", floormod(task, every))
            return seq(one, if_then(task < tasks, seq(two, three, self._turn(at, head, cosines, sines))))

        kernel = launch(ceildiv(tasks, _APPEND_THREADS), _APPEND_THREADS, thread)
        return [tirx.AllocBuffer(self.heads), kernel]

    def _turn(self, at: Expr, head: Expr, cosines: Buffer, sines: Buffer) -> Stmt:
        """One head of one row; those of values stay as they are."""
        p, half = self.p, self.p.rotary_dim // 2
        column, one = bind("column", head * p.head_dim)
        last = i64(p.positions - 1)
        position, two = bind("position", tirx.max(tirx.min(load(self.b.position_ids, 0, at), last), i64(0)))

        def put(value: Expr, j: Expr) -> Stmt:
            return store(self.heads, value, 0, at, column + j)

        def get(j: Expr) -> Expr:
            return load(self.b.qkv, 0, at, column + j)

        def pair(j: Expr) -> Stmt:
            x, first = bind("x", get(j))
            y, second = bind("y", get(j + half))
            cosine, sine = load(cosines, position, j), load(sines, position, j)
            return seq(first, second, put(x * cosine - y * sine, j), put(x * sine + y * cosine, j + half))

        def copied(start: int) -> Stmt:
            return loop(p.head_dim - start, lambda j: put(get(j + start), j + start), "j")

        turned = seq(loop(half, pair, "j"), copied(2 * half))
        return seq(one, two, if_then(head < p.heads + p.kv_heads, turned, copied(0)))

    # The second kernel.

    def append(self) -> Stmt:
        """Write the new keys and values: a thread for each row and each head of keys and values."""
        tasks = self.tokens * self.p.kv_heads

        def thread(group: Expr, lane: Expr) -> Stmt:
            task, one = bind("task", group * _APPEND_THREADS + lane)
            return seq(one, if_then(task < tasks, self._append(task)))

        return launch(ceildiv(tasks, _APPEND_THREADS), _APPEND_THREADS, thread)

    def _append(self, task: Expr) -> Stmt:
        p = self.p
        found, declared = local(1, "int32", "found")
        row, allocation = local(p.head_dim, "float32", "row")
        at, one = bind("at", floordiv(task, p.kv_heads))
        head, two = bind("head", floormod(task, p.kv_heads))
        sequence = i64(load(found, 0))
        token, three = bind("token", self._token(sequence, at))
        page, four = bind("page", self._page(sequence, token))
        slot, five = bind("slot", floormod(token, PAGE_TOKENS))
        dim = p.head_dim
        keys, values = (p.heads + head) * dim, (p.heads + p.kv_heads + head) * dim
        return seq(
            declared, allocation, one, two, self._sequence(at, found), three, four, five,
            self._read_row(row, at, keys),
            self._write_row(row, page, 0, head, slot, lambda j: j * PAGE_TOKENS + slot),
            self._read_row(row, at, values),
            self._write_row(row, page, 1, head, slot, lambda j: slot * dim + j),
        )  # fmt: skip

    def _write_row(
        self, row: Buffer, page: Expr, plane: int, head: Expr, slot: Expr, place: Callable[[Expr], Expr]
    ) -> Stmt:
        """Store ``row`` in the cache, rounded to its dtype."""
        dtype, dim = self.p.cache_dtype, self.p.head_dim

        def put(value: Callable[[Expr], Expr]) -> Stmt:
            return loop(
                dim, lambda j: store(self.b.cache, value(j), page, self._layer(), plane, head, place(j)), "j"
            )

        if self.b.scales is None:
            return put(lambda j: load(row, j) if dtype == "float32" else tirx.Cast(dtype, load(row, j)))
        most, allocation = local(1, "float32", "most")

        def grow(j: Expr) -> Stmt:
            value = load(row, j)
            return store(most, tirx.max(load(most, 0), tirx.max(value, self.zero - value)), 0)

        scale, bound = bind("scale", load(most, 0) * const_like(1.0 / _LARGEST_INT8, "float32"))
        one = const_like(1.0, "float32")
        inverse, second = bind("inverse", tirx.Select(scale > self.zero, one / scale, self.zero))
        keep = store(self.b.scales, scale, page, self._layer(), plane, head, slot)
        write = put(lambda j: tirx.Cast("int8", tirx.round(load(row, j) * inverse)))
        return seq(allocation, store(most, self.zero, 0), loop(dim, grow, "j"), bound, second, keep, write)

    # The third kernel.

    def attend(self) -> Stmt:
        """The outputs: a group for each row and query head."""
        p = self.p
        threads = _MOST_THREADS
        while threads > 1 and threads * (p.head_dim + 2) * 4 > _SHARED_BYTES:
            threads //= 2

        def thread(group: Expr, lane: Expr) -> Stmt:
            at, one = bind("at", floordiv(group, p.heads))
            head, two = bind("head", floormod(group, p.heads))
            return seq(one, two, self._attend(at, head, lane, threads))

        return launch(self.tokens * p.heads, threads, thread)

    def _attend(self, at: Expr, head: Expr, lane: Expr, threads: int) -> Stmt:
        p, dim = self.p, self.p.head_dim
        found, one = local(1, "int32", "found")
        row, two = local(dim, "float32", "row")
        state, three = local(3, "float32", "state")  # the running maximum, the sum, a score
        total, four = local(dim, "float32", "total")
        partial, five = shared(threads * (dim + 2), "float32", "partial")
        sequence = i64(load(found, 0))
        token, bound = bind("token", self._token(sequence, at))
        window = i64(load(self.b.place, 1))
        first, more = bind("first", tirx.max(token + 1 - window, i64(0)))
        kv_head, last = bind("kv_head", floordiv(head, p.group))
        own = tirx.max(tirx.floordiv(token - first - lane + threads, i64(threads)), i64(0))
        count, end = bind("count", own)
        base, slot = bind("base", lane * (dim + 2))

        def visit(t: Expr) -> Stmt:
            return self._key(first + lane + t * threads, sequence, kv_head, row, state, total)

        keep = seq(
            loop(dim, lambda j: store(partial, load(total, j), base + j), "j"),
            store(partial, load(state, 0), base + dim), store(partial, load(state, 1), base + (dim + 1)),
        )  # fmt: skip
        return seq(
            one, two, three, four, five, self._sequence(at, found), bound, more, last, end, slot,
            self._read_row(row, at, head * dim),
            store(state, const_like(-3.0e38, "float32"), 0), store(state, self.zero, 1),
            loop(dim, lambda j: store(total, self.zero, j), "j"),
            loop(count, visit, "key"), keep, barrier(), self._combine(at, head, lane, threads, partial),
        )  # fmt: skip

    def _key(
        self, token: Expr, sequence: Expr, head: Expr, row: Buffer, state: Buffer, total: Buffer
    ) -> Stmt:
        p, dim = self.p, self.p.head_dim
        where, one = bind("token", token)
        page, two = bind("page", self._page(sequence, where))
        slot, three = bind("slot", floormod(where, PAGE_TOKENS))

        def multiply(j: Expr) -> Stmt:
            key = self._cached(page, 0, head, slot, j * PAGE_TOKENS + slot)
            return store(state, load(state, 2) + load(row, j) * key, 2)

        score = load(state, 2) * const_like(p.scale, "float32")
        if p.softcap > 0:
            cap = const_like(p.softcap, "float32")
            score = tirx.tanh(score / cap) * cap
        value, four = bind("score", score)
        most, five = bind("most", tirx.max(load(state, 0), value))
        shrink, six = bind("shrink", tirx.exp(load(state, 0) - most))
        weight, seven = bind("weight", tirx.exp(value - most))

        def add(j: Expr) -> Stmt:
            cached = self._cached(page, 1, head, slot, slot * dim + j)
            return store(total, load(total, j) * shrink + weight * cached, j)

        return seq(
            one, two, three, store(state, self.zero, 2), loop(dim, multiply, "j"), four, five, six, seven,
            store(state, load(state, 1) * shrink + weight, 1), store(state, most, 0), loop(dim, add, "j"),
        )  # fmt: skip

    def _cached(self, page: Expr, plane: int, head: Expr, slot: Expr, place: Expr) -> Expr:
        value = load(self.b.cache, page, self._layer(), plane, head, place)
        value = value if self.p.cache_dtype == "float32" else tirx.Cast("float32", value)
        if self.b.scales is None:
            return value
        return value * load(self.b.scales, page, self._layer(), plane, head, slot)

    def _combine(self, at: Expr, head: Expr, lane: Expr, threads: int, partial: Buffer) -> Stmt:
        """Elements of the output from the threads' sums; a thread without keys has a sum of nothing."""
        dim, width = self.p.head_dim, self.p.head_dim + 2
        whole, one = local(2, "float32", "whole")
        value, two = local(1, "float32", "value")

        def peak(t: Expr) -> Expr:
            return load(partial, t * width + dim)

        def worth(t: Expr) -> Expr:
            return tirx.exp(peak(t) - load(whole, 0))

        def count(t: Expr) -> Stmt:
            return store(whole, load(whole, 1) + load(partial, t * width + (dim + 1)) * worth(t), 1)

        def element(i: Expr) -> Stmt:
            j, bound = bind("element", lane + i * threads)

            def add(t: Expr) -> Stmt:
                return store(value, load(value, 0) + load(partial, t * width + j) * worth(t), 0)

            out = store(self.b.output, load(value, 0) / load(whole, 1), 0, at, head * dim + j)
            return seq(
                bound, if_then(j < dim, seq(store(value, self.zero, 0), loop(threads, add, "part"), out))
            )  # fmt: skip

        return seq(
            one, two, store(whole, peak(i64(0)), 0), store(whole, self.zero, 1),
            loop(threads, lambda t: store(whole, tirx.max(load(whole, 0), peak(t)), 0), "part"),
            loop(threads, count, "part"), loop(ceildiv(i64(dim), threads), element, "step"),
        )  # fmt: skip
