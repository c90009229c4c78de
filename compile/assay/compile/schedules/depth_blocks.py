"""Blocks of K: where K is long, A is multiplied a stretch of columns at a time, which L2 holds meanwhile.

The KC loop of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008. Sums wait in
a buffer ``[panel, row, NR]`` between blocks; only the last block runs the epilogue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assay.compile.schedules.ir import Buffer, Expr, Stmt, loop, seq

__all__ = ["DepthBlock", "choose_block_depth", "walk_depth_blocks"]

# Steps of K in one block, about: long enough that loading and storing the sums costs next to nothing.
_DEPTH = 768


@dataclass(frozen=True, kw_only=True)
class DepthBlock:
    """A stretch of K; ``resumes``: ``sums`` holds what came before; ``ends``: it is the last one."""

    start: int | Expr
    depth: int
    resumes: bool
    ends: bool
    sums: Buffer


def choose_block_depth(depth: int, rows: int, l2_bytes: int, unroll: int) -> int | None:
    """Steps of K in one block, a multiple of ``unroll``; None for a short K, or where half of L2 holds A."""
    if depth < 2 * _DEPTH or 4 * depth * rows <= l2_bytes // 2:
        return None
    blocks = depth // _DEPTH
    return -(-depth // (blocks * unroll)) * unroll


def walk_depth_blocks(depth: int, size: int, sums: Buffer, walk: Callable[[DepthBlock], Stmt]) -> Stmt:
    """``walk`` for each block of ``size`` steps: the first starts the sums, the last gives them on."""
    blocks = -(-depth // size)
    last = depth - (blocks - 1) * size
    first = walk(DepthBlock(start=0, depth=size, resumes=False, ends=False, sums=sums))
    end = walk(DepthBlock(start=depth - last, depth=last, resumes=True, ends=True, sums=sums))
    if blocks == 2:
        return seq(first, end)

    def middle(t: Expr) -> Stmt:
        return walk(DepthBlock(start=(t + 1) * size, depth=size, resumes=True, ends=False, sums=sums))

    return seq(first, loop(blocks - 2, middle, "depth_block"), end)
