"""Attention over a paged cache on a device, in kernels of at most eight buffers, which WebGPU has.

Where a model has rotary embedding, one turns heads by their positions; one writes new keys and values; one
attends.

A group of threads computes one row of one query head. Each thread goes through every n-th key with a running
maximum (Milakov and Gimelshein, 2018); then the threads' results are combined under the largest maximum, as
in Dao et al., "Flash-Decoding", 2023. Nothing depends on how many threads run in lockstep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvm import tirx

from assay.compile.device_schedules.threads import barrier, launch, local, shared, turns
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

__all__ = ["Each", "Keys", "PagedKernels", "one_by_one"]

Put: TypeAlias = Callable[[Expr, Expr], Stmt]  # a value and its place in a head
Each: TypeAlias = Callable[[int, Callable[[Expr], Stmt]], Stmt]  # a body of each number below the first

_LARGEST_INT8 = 127.0
_APPEND_THREADS = 64
_MOST_THREADS = 64
# Of one group, less than what every device has: WebGPU promises 16 KiB.
_SHARED_BYTES = 12 * 1024


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of a thread for the query in ``row`` of ``token``: tokens ``first + i * step``, i < ``count``.

    ``state``: the running maximum, the sum, a score. ``total``: the weighted sum of values.
    """

    sequence: Expr
    head: Expr
    first: Expr
    step: int
    count: Expr
    token: Expr
    row: Buffer
    state: Buffer
    total: Buffer


class PagedKernels:
    """The kernels of a problem, and what other kernels of it have in common with them."""

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

    def page(self, sequence: Expr, token: Expr) -> Expr:
        """The page that holds a token."""
        return i64(load(self.b.page_table, sequence, floordiv(token, PAGE_TOKENS)))

    def _layer(self) -> Expr:
        return i64(load(self.b.place, 0))

    def read_row(self, row: Buffer, at: Expr, column: Expr, each: Each) -> Stmt:
        """``row`` = a head of a token, from ``column`` on."""
        return each(self.p.head_dim, lambda j: store(row, load(self.heads, 0, at, column + j), j))

    # The first kernel.

    def turn(self) -> tuple[list[Stmt], list[Stmt]]:
        """Write ``heads``, with rotary embedding: a thread for each row and head. Nothing without such.

        The declaration of the memory, and the kernel.
        """
        p, cosines, sines = self.p, self.b.cosines, self.b.sines
        if cosines is None or sines is None:
            return [], []
        every = p.heads + 2 * p.kv_heads
        tasks = self.tokens * every

        def thread(group: Expr, lane: Expr) -> Stmt:
            task, one = bind("task", group * _APPEND_THREADS + lane)
            at, two = bind("at", floordiv(task, every))
            head, three = bind("head", floormod(task, every))
            return seq(one, if_then(task < tasks, seq(two, three, self._turn(at, head, cosines, sines))))

        kernel = launch(ceildiv(tasks, _APPEND_THREADS), _APPEND_THREADS, thread)
        return [tirx.AllocBuffer(self.heads)], [kernel]

    def _turn(self, at: Expr, head: Expr, cosines: Buffer, sines: Buffer) -> Stmt:
        """One head of one row; those of values stay as they are."""
        dim = self.p.head_dim
        column, bound = bind("column", head * dim)

        def put(value: Expr, j: Expr) -> Stmt:
            return store(self.heads, value, 0, at, column + j)

        turned = self.turned(at, column, cosines, sines, put, one_by_one)
        copied = loop(dim, lambda j: put(load(self.b.qkv, 0, at, column + j), j), "j")
        return seq(bound, if_then(head < self.p.heads + self.p.kv_heads, turned, copied))

    def turned(self, at: Expr, column: Expr, cosines: Buffer, sines: Buffer, put: Put, each: Each) -> Stmt:
        """``put`` the head of a query or a key that starts at ``column`` of row ``at``, turned."""
        p, half = self.p, self.p.rotary_dim // 2
        last = i64(p.positions - 1)
        position, bound = bind("position", tirx.max(tirx.min(load(self.b.position_ids, 0, at), last), i64(0)))

        def get(j: Expr) -> Expr:
            return load(self.b.qkv, 0, at, column + j)

        def pair(j: Expr) -> Stmt:
            x, first = bind("x", get(j))
            y, second = bind("y", get(j + half))
            cosine, sine = load(cosines, position, j), load(sines, position, j)
            return seq(first, second, put(x * cosine - y * sine, j), put(x * sine + y * cosine, j + half))

        start = 2 * half
        return seq(
            bound, each(half, pair), each(p.head_dim - start, lambda j: put(get(j + start), j + start))
        )

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
        page, four = bind("page", self.page(sequence, token))
        slot, five = bind("slot", floormod(token, PAGE_TOKENS))
        statements: list[Stmt] = [declared, allocation, *one, *two, self._sequence(at, found)]
        statements += [*three, *four, *five]
        for plane in (0, 1):
            first = self.column(plane, head)
            scale, rounded = self.rounded(row)
            statements += [self.read_row(row, at, first, one_by_one), *rounded]
            statements.append(self.keep_row(row, scale, page, plane, head, slot))
        return seq(*statements)

    def column(self, plane: int, head: Expr) -> Expr:
        """Where the keys (plane 0) or values (plane 1) of a head start in a row."""
        return (self.p.heads + plane * self.p.kv_heads + head) * self.p.head_dim

    def rounded(self, row: Buffer) -> tuple[Expr | None, list[Stmt]]:
        """Round ``row`` to numbers of the cache's dtype. They are worth the scale, where there is one."""
        dtype, dim = self.p.cache_dtype, self.p.head_dim

        def replaced(value: Callable[[Expr], Expr]) -> Stmt:
            return loop(dim, lambda j: store(row, tirx.Cast("float32", tirx.Cast(dtype, value(j))), j), "j")

        if self.b.scales is None:
            return None, [] if dtype == "float32" else [replaced(lambda j: load(row, j))]
        most, allocation = local(1, "float32", "most")

        def grow(j: Expr) -> Stmt:
            value = load(row, j)
            return store(most, tirx.max(load(most, 0), tirx.max(value, self.zero - value)), 0)

        scale, bound = bind("scale", load(most, 0) * const_like(1.0 / _LARGEST_INT8, "float32"))
        one = const_like(1.0, "float32")
        inverse, second = bind("inverse", tirx.Select(scale > self.zero, one / scale, self.zero))
        write = replaced(lambda j: tirx.round(load(row, j) * inverse))
        clear = store(most, self.zero, 0)
        return scale, [allocation, clear, loop(dim, grow, "j"), *bound, *second, write]

    def keep_row(
        self, row: Buffer, scale: Expr | None, page: Expr, plane: int, head: Expr, slot: Expr
    ) -> Stmt:
        """Store what ``rounded`` made in the cache."""
        dim, dtype = self.p.head_dim, self.p.cache_dtype

        def put(j: Expr) -> Stmt:
            value = load(row, j) if dtype == "float32" else tirx.Cast(dtype, load(row, j))
            place = self._place(plane, slot, j)
            return store(self.b.cache, value, page, self._layer(), plane, head, place)

        written = loop(dim, put, "j")
        if scale is None:
            return written
        return seq(store(self.b.scales, scale, page, self._layer(), plane, head, slot), written)

    def _place(self, plane: int, slot: Expr, j: Expr) -> Expr:
        """Where element j of a token lies in a page."""
        return slot * self.p.head_dim + j if plane else j * PAGE_TOKENS + slot

    # The third kernel.

    def attend(self) -> Stmt:
        """The outputs: a group for each row and query head."""
        p, threads = self.p, self.threads()

        def thread(group: Expr, lane: Expr) -> Stmt:
            at, one = bind("at", floordiv(group, p.heads))
            head, two = bind("head", floormod(group, p.heads))
            return seq(one, two, self._attend(at, head, lane, threads))

        return launch(self.tokens * p.heads, threads, thread)

    def threads(self) -> int:
        """Threads of a group, whose sums fit shared memory."""
        threads = _MOST_THREADS
        while threads > 1 and threads * (self.p.head_dim + 3) * 4 > _SHARED_BYTES:
            threads //= 2
        return threads

    def _attend(self, at: Expr, head: Expr, lane: Expr, threads: int) -> Stmt:
        row, declared = local(self.p.head_dim, "float32", "row")
        read = self.read_row(row, at, head * self.p.head_dim, one_by_one)

        def keys(keys: Keys) -> Stmt:
            return loop(keys.count, lambda t: self.cached_key(keys, t), "key")

        return seq(declared, read, self.attention(at, head, lane, threads, row, keys))

    def attention(
        self, at: Expr, head: Expr, lane: Expr, threads: int, row: Buffer, keys: Callable[[Keys], Stmt]
    ) -> Stmt:
        """The output of the query in ``row``; ``keys`` goes through the keys of this thread."""
        dim = self.p.head_dim
        found, one = local(1, "int32", "found")
        state, two = local(3, "float32", "state")
        total, three = local(dim, "float32", "total")
        partial, four = shared(threads * (dim + 2), "float32", "partial")
        sequence = i64(load(found, 0))
        token, bound = bind("token", self._token(sequence, at))
        window = i64(load(self.b.place, 1))
        first, more = bind("first", tirx.max(token + 1 - window, i64(0)))
        kv_head, last = bind("kv_head", floordiv(head, self.p.group))
        count, end = bind("count", turns(token + 1 - first, lane, threads))
        base, slot = bind("base", lane * (dim + 2))
        used, limit = bind("used", tirx.min(token + 1 - first, i64(threads)))
        own = Keys(
            sequence=sequence, head=kv_head, first=first + lane, step=threads, count=count, token=token,
            row=row, state=state, total=total,
        )  # fmt: skip
        clear = seq(
            store(state, const_like(-3.0e38, "float32"), 0), store(state, self.zero, 1),
            loop(dim, lambda j: store(total, self.zero, j), "j"),
        )  # fmt: skip
        keep = seq(
            loop(dim, lambda j: store(partial, load(total, j), base + j), "j"),
            store(partial, load(state, 0), base + dim), store(partial, load(state, 1), base + (dim + 1)),
        )  # fmt: skip
        return seq(
            one, two, three, four, self._sequence(at, found), bound, more, last, end, slot, limit,
            if_then(lane < used, seq(clear, keys(own), keep)), barrier(),
            self._combine(at, head, lane, threads, used, partial),
        )  # fmt: skip

    def cached_key(self, keys: Keys, turn: Expr) -> Stmt:
        """Add a key of the cache, and its value."""
        where, one = bind("token", keys.first + turn * keys.step)
        page, two = bind("page", self.page(keys.sequence, where))
        slot, three = bind("slot", floormod(where, PAGE_TOKENS))

        def element(plane: int, j: Expr) -> Expr:
            return self._cached(page, plane, keys.head, slot, self._place(plane, slot, j))

        return seq(
            one, two, three, self.score(keys, lambda j: element(0, j)),
            self.weigh(keys, lambda j: element(1, j)),
        )  # fmt: skip

    def score(self, keys: Keys, key: Callable[[Expr], Expr]) -> Stmt:
        """Let the last of the state be the product of the query and a key."""
        state = keys.state

        def multiply(j: Expr) -> Stmt:
            return store(state, load(state, 2) + load(keys.row, j) * key(j), 2)

        return seq(store(state, self.zero, 2), loop(self.p.head_dim, multiply, "j"))

    def weigh(self, keys: Keys, element: Callable[[Expr], Expr]) -> Stmt:
        """Add the value of the key whose product is in the state."""
        p, state, total = self.p, keys.state, keys.total
        score = load(state, 2) * const_like(p.scale, "float32")
        if p.softcap > 0:
            cap = const_like(p.softcap, "float32")
            score = tirx.tanh(score / cap) * cap
        value, one = bind("score", score)
        most, two = bind("most", tirx.max(load(state, 0), value))
        shrink, three = bind("shrink", tirx.exp(load(state, 0) - most))
        weight, four = bind("weight", tirx.exp(value - most))

        def add(j: Expr) -> Stmt:
            return store(total, load(total, j) * shrink + weight * element(j), j)

        return seq(
            one, two, three, four, store(state, load(state, 1) * shrink + weight, 1), store(state, most, 0),
            loop(p.head_dim, add, "j"),
        )  # fmt: skip

    def _cached(self, page: Expr, plane: int, head: Expr, slot: Expr, place: Expr) -> Expr:
        value = load(self.b.cache, page, self._layer(), plane, head, place)
        value = value if self.p.cache_dtype == "float32" else tirx.Cast("float32", value)
        if self.b.scales is None:
            return value
        return value * load(self.b.scales, page, self._layer(), plane, head, slot)

    def _combine(self, at: Expr, head: Expr, lane: Expr, threads: int, used: Expr, partial: Buffer) -> Stmt:
        """Elements of the output from the sums of the first ``used`` threads, which all have keys."""
        dim, width = self.p.head_dim, self.p.head_dim + 2
        worth, one = shared(threads, "float32", "worth")
        whole, two = local(2, "float32", "whole")
        value, three = local(1, "float32", "value")

        def peak(t: Expr) -> Expr:
            return load(partial, t * width + dim)

        def count(t: Expr) -> Stmt:
            return store(whole, load(whole, 1) + load(partial, t * width + (dim + 1)) * load(worth, t), 1)

        def element(i: Expr) -> Stmt:
            j, bound = bind("element", lane + i * threads)

            def add(t: Expr) -> Stmt:
                return store(value, load(value, 0) + load(partial, t * width + j) * load(worth, t), 0)

            out = store(self.b.output, load(value, 0) / load(whole, 1), 0, at, head * dim + j)
            return seq(bound, if_then(j < dim, seq(store(value, self.zero, 0), loop(used, add, "part"), out)))

        return seq(
            one, two, three, store(whole, peak(i64(0)), 0),
            loop(used, lambda t: store(whole, tirx.max(load(whole, 0), peak(t)), 0), "part"),
            if_then(lane < used, store(worth, tirx.exp(peak(lane) - load(whole, 0)), lane)), barrier(),
            store(whole, self.zero, 1), loop(used, count, "part"),
            loop(ceildiv(i64(dim), threads), element, "step"),
        )  # fmt: skip


def one_by_one(count: int, body: Callable[[Expr], Stmt]) -> Stmt:
    """All by the same thread."""
    return loop(count, body, "j")
