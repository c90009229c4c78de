from __future__ import annotations

import pytest

from assay.compile.schedules.tiles import choose_panel_width, choose_rows, choose_tile, rows_that_fit
from assay.compile.targets import VectorUnit, targets

NAMES = ["x86-64-v2", "x86-64-v3", "x86-64-v4"]
UNITS = [targets()[name].vector_unit for name in NAMES]
SHAPES = [(1, 1), (1, 7), (1, 1000), (3, 24), (7, 100), (49, 512), (128, 3072), (3136, 64), (10_000, 3)]


def vector_registers(unit: VectorUnit, rows: int, width: int) -> int:
    """Accumulators, one row of B and one broadcast of A; for one row B is the operand in memory.

    Without a fused multiply-add two products are in registers of their own.
    """
    vectors = width // unit.lanes()
    return rows * vectors + (1 if unit.fma else 3) + (vectors if rows > 1 else 0)


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_tile_fits_in_registers(unit: VectorUnit, rows: int, cols: int) -> None:
    width = choose_panel_width(unit, rows, cols)
    tile = choose_tile(unit, rows, width, 512)
    assert width % unit.lanes() == 0
    assert tile.cols == width
    assert 1 <= tile.rows <= rows
    assert vector_registers(unit, tile.rows, width) <= unit.registers
    assert tile.rows <= rows_that_fit(unit, width)


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_large_products_keep_both_multipliers_busy(unit: VectorUnit) -> None:
    """Two multiply-adds a cycle with a latency of four need eight accumulators, and no more loads."""
    width = choose_panel_width(unit, 512, 768)
    rows = choose_rows(unit, 512, width)
    vectors = width // unit.lanes()
    assert rows * vectors >= 8
    assert rows + vectors <= rows * vectors


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_few_columns_take_no_wider_panel_than_they_need(unit: VectorUnit) -> None:
    lanes = unit.lanes()
    for cols in (1, lanes, lanes + 1, 2 * lanes):
        assert choose_panel_width(unit, 64, cols) <= -(-cols // lanes) * lanes


@pytest.mark.parametrize(("depth", "most"), [(3, 1), (15, 1), (16, 4), (None, 4)])
def test_reduction_is_unrolled_only_where_it_is_long(depth: int | None, most: int) -> None:
    unit = UNITS[0]
    tile = choose_tile(unit, 1, unit.lanes(), depth)
    assert tile.unroll == most


def test_panel_that_leaves_no_register_is_refused() -> None:
    unit = UNITS[0]
    assert rows_that_fit(unit, unit.registers * unit.lanes()) == 0
