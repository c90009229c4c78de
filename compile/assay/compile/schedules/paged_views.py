"""What the kernels over a paged cache read and write: flat views of their parameters, and rows of heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    bind,
    flat_view,
    floordiv,
    i64,
    lanes_at,
    load,
    seq,
)
from assay.compile.schedules.nest import vector_pieces
from assay.compile.schedules.paged_problem import PAGE_TOKENS, PagedBuffers, PagedProblem
from assay.compile.schedules.register_tile import vector_variable
from assay.compile.targets.target import VectorUnit

__all__ = ["PagedViews", "page_of"]

# Stores consecutive elements of a row: the first one's position, their number, their values.
Put = Callable[[Expr, int, Expr], Stmt]


@dataclass(frozen=True, kw_only=True)
class PagedViews:
    """One-dimensional views of ``PagedBuffers``; ``layer`` and ``window`` are what ``place`` holds.

    ``declarations`` come first in the function.
    """

    problem: PagedProblem
    unit: VectorUnit
    buffers: PagedBuffers
    qkv: Buffer
    cosines: Buffer | None
    sines: Buffer | None
    cache: Buffer
    scales: Buffer | None
    output: Buffer
    layer: Expr
    window: Expr
    declarations: tuple[Stmt, ...]

    @classmethod
    def of(cls, problem: PagedProblem, unit: VectorUnit, buffers: PagedBuffers) -> PagedViews:
        """The views of ``buffers``."""
        statements: list[Stmt] = []
        views: dict[str, Buffer | None] = {}
        for name in ("qkv", "cosines", "sines", "cache", "scales", "output"):
            whole = getattr(buffers, name)
            views[name] = None
            if whole is not None:
                views[name], declaration = flat_view(whole)
                statements.append(declaration)
        layer, first = bind("layer", i64(load(buffers.place, 0)))
        window, second = bind("window", i64(load(buffers.place, 1)))
        return cls(
            problem=problem,
            unit=unit,
            buffers=buffers,
            layer=layer,
            window=window,
            declarations=(*statements, *first, *second),
            **views,
        )

    def begin(self, sequence: Expr) -> Expr:
        """The first row of a sequence."""
        return i64(load(self.buffers.sequence_offsets, sequence))

    def rows(self, sequence: Expr) -> Expr:
        """The number of rows of a sequence."""
        return self.begin(sequence + 1) - self.begin(sequence)

    def past(self, sequence: Expr) -> Expr:
        """Tokens of a sequence that were in the cache before."""
        return i64(load(self.buffers.past_lengths, sequence))

    def plane(self, sequence: Expr, number: Expr, head: Expr) -> Expr:
        """The index of a sequence's page ``number`` of keys of a head among all of the cache's planes.

        Its values are ``kv_heads`` further.
        """
        page = i64(load(self.buffers.page_table, sequence, number))
        return ((page * self.problem.layers + self.layer) * 2) * self.problem.kv_heads + head

    def head_row(self, row: Expr, column: Expr, put: Put, *, turned: bool) -> Stmt:
        """A head of a row, from ``column`` of qkv, given to ``put``; ``turned`` by its position."""
        p, lanes = self.problem, self.unit.lanes()
        start, statements = bind("head_start", row * p.columns + column)
        rotary = p.rotary_dim if turned else 0
        if rotary:
            statements.append(self._turned(row, start, put))

        def copy(at: Expr, count: int, _: int) -> Stmt:
            return put(rotary + at, count, load(self.qkv, lanes_at(start + (rotary + at), count)))

        return seq(statements, vector_pieces(i64(p.head_dim - rotary), lanes, copy))

    def _turned(self, row: Expr, start: Expr, put: Put) -> Stmt:
        """Rotary embedding (Su et al., 2021) of pairs half of the turned elements apart."""
        assert self.cosines is not None
        assert self.sines is not None
        half = self.problem.rotary_dim // 2
        position = load(self.buffers.position_ids, 0, row)
        position = tirx.max(tirx.min(position, i64(self.problem.positions - 1)), i64(0))
        table, statements = bind("angles", position * half)

        def pair(at: Expr, count: int, _: int) -> Stmt:
            own: list[Stmt] = []
            x, y, cosine, sine = (
                vector_variable(load(buffer, lanes_at(place, count)), count, own)
                for buffer, place in (
                    (self.qkv, start + at),
                    (self.qkv, start + half + at),
                    (self.cosines, table + at),
                    (self.sines, table + at),
                )
            )
            return seq(
                own, put(at, count, x * cosine - y * sine), put(at + half, count, x * sine + y * cosine)
            )

        return seq(statements, vector_pieces(i64(half), self.unit.lanes(), pair))


def page_of(token: Expr) -> Expr:
    """The number of the page, within its sequence, that holds a token."""
    return floordiv(token, PAGE_TOKENS)
