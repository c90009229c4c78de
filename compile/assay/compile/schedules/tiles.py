"""The register tile of a contraction, chosen from the shape and the vector unit; no search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from assay.compile.targets.target import VectorUnit

__all__ = ["Tile", "choose_panel_width", "choose_tile", "rows_that_fit"]

# Cycles until a multiply-add's result can be used (Agner Fog's instruction tables: Haswell 5, later 4).
_LATENCY = 4
# A load costs a little even where the multiply-adds hide it.
_LOAD_WEIGHT = 0.1
# Elements that L2 gives in a cycle.
_LANES_A_CYCLE = 8
_MAX_ROWS = 14
# More rows of two-operand code make LLVM spill, whatever registers are left.
_MAX_ROWS_TWO_OPERANDS = 4
_MAX_VECTORS = 8


@dataclass(frozen=True, kw_only=True)
class Tile:
    """MR x NR accumulators held in registers; ``unroll`` steps of K per iteration."""

    rows: int
    cols: int
    unroll: int


def rows_that_fit(unit: VectorUnit, cols: int) -> int:
    """The most rows whose accumulators stay in registers beside one row of B and one broadcast of A."""
    vectors = cols // unit.lanes()
    # Two-operand code without a fused multiply-add copies A for each product, and the compiler starts the
    # next product before the last one is added.
    beside = 1 if unit.fma else 3
    rows = (unit.registers - beside - vectors) // vectors
    # One row needs no register for B: it is the multiply-add's memory operand.
    most = _MAX_ROWS if unit.fma else _MAX_ROWS_TWO_OPERANDS
    return min(most, max(rows, 1)) if vectors + beside < unit.registers else 0


def _tile_cycles(rows: int, vectors: int, lanes: int) -> float:
    """Cycles per step of K: two multiply-adds and two loads a cycle, each accumulator once per latency.

    B comes from L2, half a cache line a cycle: its vectors of a whole line weigh twice.
    """
    multiply_adds = rows * vectors / 2
    loads = (rows + vectors) / 2
    fetched = (rows + vectors * max(1, lanes // _LANES_A_CYCLE)) / 2
    return max(multiply_adds, loads, _LATENCY) + _LOAD_WEIGHT * fetched


def _row_tiles(rows: int, most: int) -> Iterator[int]:
    full, tail = divmod(rows, most)
    yield from [most] * full
    if tail:
        yield tail


def _cost(rows: int, cols: int, most: int, width: int, lanes: int) -> float:
    panels = -(-cols // width)
    return panels * sum(_tile_cycles(r, width // lanes, lanes) for r in _row_tiles(rows, most))


@cache
def choose_panel_width(unit: VectorUnit, rows: int, cols: int) -> int:
    """NR: columns of one packed panel of B for ``rows`` x ``cols`` outputs, a multiple of the lanes."""
    lanes = unit.lanes()
    best = min(
        (
            (
                _cost(rows, cols, choose_rows(unit, rows, vectors * lanes), vectors * lanes, lanes),
                vectors * lanes,
            )
            for vectors in range(1, _MAX_VECTORS + 1)
            if rows_that_fit(unit, vectors * lanes) >= 1
        ),
    )
    return best[1]


@cache
def choose_rows(unit: VectorUnit, rows: int, width: int) -> int:
    """MR for ``rows`` outputs over panels of ``width`` columns: the cheapest height, taller on a tie."""
    lanes = unit.lanes()
    heights = range(1, min(rows, rows_that_fit(unit, width)) + 1)
    return min(heights, key=lambda h: (_cost(rows, width, h, width, lanes), -h))


def choose_tile(
    unit: VectorUnit,
    outputs: int,
    width: int,
    depth: int | None,
    *,
    rows: int | None = None,
    unroll: int | None = None,
) -> Tile:
    """The tile for ``outputs`` rows, panels of ``width`` columns and a reduction of ``depth`` (None: any).

    ``rows`` and ``unroll`` are taken as they are where they are given.
    """
    height = rows or choose_rows(unit, outputs, width)
    if unroll is None:
        unroll = 4 if depth is None or depth >= 16 else 1
        vectors = width // unit.lanes()
        while height * vectors * unroll > 64 and unroll > 1:
            unroll //= 2
        # LLVM reads the only vector of B for several steps at once: the registers must hold those too.
        if vectors == 1 and height + 2 >= unit.registers:
            unroll = 1
    return Tile(rows=height, cols=width, unroll=unroll)
