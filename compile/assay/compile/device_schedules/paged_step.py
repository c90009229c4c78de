"""Attention over a paged cache in one launch, for few rows, as in a step of a decoder.

Every group reads the tokens of the call where the projection left them, turns and rounds them by itself, and
the first group of each head writes them to the cache: none waits for another. Tokens before the call come
from the cache. What a thread computes of them is what ``PagedKernels`` does.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from assay.compile.device_schedules.paged_kernels import Each, Keys, PagedKernels, one_by_one
from assay.compile.device_schedules.threads import barrier, launch, local, shared, turns
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    bind,
    ceildiv,
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

__all__ = ["StepKernel"]


class StepKernel(PagedKernels):
    """``turned``: queries, keys and values where another kernel has turned them; None: this one does."""

    def __init__(self, problem: PagedProblem, buffers: PagedBuffers, *, turned: Buffer | None) -> None:
        super().__init__(problem, buffers)
        self.heads = buffers.qkv if turned is None else turned
        self.turns_heads = turned is None

    def step(self) -> Stmt:
        """The outputs and the cache: a group for each row and query head."""
        p, threads = self.p, self.threads()

        def thread(group: Expr, lane: Expr) -> Stmt:
            at, one = bind("at", floordiv(group, p.heads))
            head, two = bind("head", floormod(group, p.heads))
            row, declared = shared(p.head_dim, "float32", "query")

            def in_turns(count: int, body: Callable[[Expr], Stmt]) -> Stmt:
                def visit(i: Expr) -> Stmt:
                    j, bound = bind("j", lane + i * threads)
                    return seq(bound, body(j) if count % threads == 0 else if_then(j < count, body(j)))

                return loop(ceildiv(i64(count), threads), visit, "part")

            read = self._read(row, at, head * p.head_dim, in_turns, turned=self.turns_heads)
            attention = self.attention(at, head, lane, threads, row, lambda keys: self._keys(keys, at, head))
            return seq(one, two, declared, read, barrier(), attention)

        return launch(self.tokens * p.heads, threads, thread)

    def _read(self, row: Buffer, at: Expr, column: Expr, each: Each, *, turned: bool) -> Stmt:
        cosines, sines = self.b.cosines, self.b.sines
        if turned and cosines is not None and sines is not None:
            return self.turned(at, column, cosines, sines, lambda value, j: store(row, value, j), each)
        return self.read_row(row, at, column, each)

    def _keys(self, keys: Keys, at: Expr, head: Expr) -> Stmt:
        """The keys of the cache, then those of the call."""
        past = i64(load(self.b.past_lengths, keys.sequence))
        cached, bound = bind("cached", tirx.min(turns(past - keys.first, i64(0), keys.step), keys.count))
        row, declared = local(self.p.head_dim, "float32", "row")
        return seq(
            bound, declared, loop(cached, lambda t: self.cached_key(keys, t), "key"),
            loop(keys.count - cached, lambda t: self._own_key(keys, cached + t, at, head, row), "key"),
        )  # fmt: skip

    def _own_key(self, keys: Keys, turn: Expr, at: Expr, head: Expr, row: Buffer) -> Stmt:
        """Add a key of the call, and its value. The one of the row itself goes to the cache."""
        where, one = bind("token", keys.first + turn * keys.step)
        source, two = bind("source", at - (keys.token - where))
        page, three = bind("page", self.page(keys.sequence, where))
        slot, four = bind("slot", floormod(where, PAGE_TOKENS))
        writes = tirx.And(where.equal(keys.token), floormod(head, self.p.group).equal(0))

        def plane(number: int) -> list[Stmt]:
            column = self.column(number, keys.head)
            turned = self.turns_heads and number == 0
            scale, rounded = self.rounded(row)

            def element(j: Expr) -> Expr:
                return load(row, j) if scale is None else load(row, j) * scale

            return [
                self._read(row, source, column, one_by_one, turned=turned),
                *rounded,
                if_then(writes, self.keep_row(row, scale, page, number, keys.head, slot)),
                self.weigh(keys, element) if number else self.score(keys, element),
            ]

        return seq(one, two, three, four, *plane(0), *plane(1))
