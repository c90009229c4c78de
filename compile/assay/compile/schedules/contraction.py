"""A contraction as the micro-kernel sees it: rows of A, panels of B, and where outputs go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay.compile.schedules.ir import Buffer, Expr
from assay.compile.schedules.multiply_add import FLOAT32, MultiplyAdd

__all__ = ["Contraction", "StepOrder"]


@dataclass(frozen=True, kw_only=True)
class StepOrder:
    """An order of the steps that differs between panels, and which of them are added before they are widened.

    ``offsets``: where in A each step of a panel starts, integers, flat, in multiples of ``unit``;
    ``first(group, panel)``: the position of a panel's first one. ``sizes``: how many steps are taken
    together, and how often, in order.
    """

    offsets: Buffer
    first: Callable[[Expr, Expr], Expr]
    sizes: tuple[tuple[int, int], ...]
    unit: int = 1


@dataclass(frozen=True, kw_only=True)
class Contraction:
    """``out[group, row, col] = sum_k A[group, row, k] * B[group, k, col]``, as the micro-kernel sees it.

    ``a``: one-dimensional view of A. ``a_offset(group, row)``: where a row's reduction starts in it.
    ``reduction``: outer reduction loops as (extent, stride in A); ``depth``: the contiguous innermost one.
    ``a_row_bytes``: bytes of A that one more row brings into the cache.
    ``b``: packed panels, flat; ``b_offset(group, panel)``: where a panel starts; it holds the whole reduction
    as ``[K, NR]``, or, where ``multiply_add`` takes several K a step, as ``[steps, NR, K of a step]``, zeros
    behind the last K of each walk over ``depth``; with an ``order``, in that order.
    ``out_index(group, row, col)``: index of an output in the anchor's buffer;
    ``out_flat``: the same as a row-major position.
    """

    groups: int | Expr
    rows: int | Expr
    cols: int | Expr
    a: Buffer
    a_offset: Callable[[Expr, Expr], Expr]
    reduction: tuple[tuple[int, Expr], ...]
    depth: int | Expr
    a_row_bytes: int
    b: Buffer
    b_offset: Callable[[Expr, Expr], Expr]
    panel_width: int
    out_index: Callable[[Expr, Expr, Expr], Sequence[Expr]]
    out_flat: Callable[[Expr, Expr, Expr], Expr]
    multiply_add: MultiplyAdd = FLOAT32
    order: StepOrder | None = None
