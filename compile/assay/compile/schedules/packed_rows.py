"""Rows of A copied for tiles of 64 bytes of K: the whole reduction of each in one piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from assay.compile.schedules.contraction import Contraction
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    as_int,
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

__all__ = ["QUAD", "TILE_DEPTH", "PackedRows"]

QUAD = 4
TILE_DEPTH = 64  # bytes of K of a whole tile


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """How the copy of a row of A lies, so that B's panels need no padding for a K that no tile divides.

    ``run``: bytes that are neighbours in A. ``extents``: how many runs there are, by loop of the reduction.
    The first tile has the first ``rest`` of K, and zeros behind them; the next ones start at ``rest``.
    """

    run: int
    extents: tuple[int, ...]

    @classmethod
    def of(cls, contraction: Contraction) -> PackedRows:
        """The layout for a contraction of constant depth."""
        run = as_int(contraction.depth)
        assert run is not None
        return cls(run=run, extents=tuple(extent for extent, _ in contraction.reduction))

    @property
    def padded_run(self) -> int:
        """Bytes of a run in B's panels."""
        return -(-self.run // QUAD) * QUAD

    @property
    def depth(self) -> int:
        """Bytes of K in B's panels."""
        return math.prod(self.extents) * self.padded_run

    @property
    def tile_depth(self) -> int:
        """Bytes of K of a tile."""
        return min(TILE_DEPTH, self.depth)

    @property
    def rest(self) -> int:
        """Bytes of K of the first tile where it is not whole, else 0."""
        return self.depth % self.tile_depth

    @property
    def tiles(self) -> int:
        """Tiles along K."""
        return -(-self.depth // self.tile_depth)

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        return self.tiles * TILE_DEPTH

    def copy(self, contraction: Contraction, row: Expr, rows: Buffer, to: Expr) -> Stmt:
        """Copy a row of A to the position ``to`` of ``rows``."""
        source, statements = bind("source", contraction.a_offset(i64(0), row))
        gap = TILE_DEPTH - self.rest if self.rest else 0
        statements += _cleared(rows, to + self.rest, gap)
        strides = [stride for _, stride in contraction.reduction]
        for number, place in enumerate(product(*(range(extent) for extent in self.extents))):
            start = source + sum((i64(p) * stride for p, stride in zip(place, strides, strict=True)), i64(0))
            begin = number * self.padded_run
            split = min(max(self.rest - begin, 0), self.run)
            statements += _copied(contraction.a, start, rows, to + begin, split)
            statements += _copied(
                contraction.a, start + split, rows, to + (begin + split + gap), self.run - split
            )
        return seq(statements)


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    """Positions and sizes, powers of two, of what ``count`` bytes behind whole vectors are moved in."""
    at = count // TILE_DEPTH * TILE_DEPTH
    size = TILE_DEPTH // 2
    while size:
        if count & size:
            yield at, size
            at += size
        size //= 2


def _copied(source: Buffer, start: Expr, target: Buffer, to: Expr, count: int) -> list[Stmt]:
    """Copy ``count`` bytes."""

    def move(at: Expr | int, size: int) -> Stmt:
        return store(target, load(source, lanes_at(start + at, size)), lanes_at(to + at, size))

    whole = count // TILE_DEPTH
    statements = [loop(whole, lambda i: move(i * TILE_DEPTH, TILE_DEPTH), "vector")] if whole else []
    return [*statements, *(move(at, size) for at, size in _pieces(count))]


def _cleared(target: Buffer, to: Expr, count: int) -> list[Stmt]:
    """Clear ``count`` bytes, fewer than a vector has."""
    zero = const_like(0, "uint8")
    return [
        store(target, broadcast(zero, size) if size > 1 else zero, lanes_at(to + at, size))
        for at, size in _pieces(count)
    ]
