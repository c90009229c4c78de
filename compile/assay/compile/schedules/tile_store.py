"""From accumulators to memory: the epilogue on a whole tile, or on the columns of it that exist."""

from __future__ import annotations

from collections.abc import Sequence

from assay.compile.schedules.contraction import Contraction
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.ir import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    as_int,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.math import Registers, with_registers

__all__ = ["fetch_tile", "store_tile"]


def fetch_tile(
    contraction: Contraction, epilogue: Epilogue, height: int, group: Expr, panel: Expr, row: Expr
) -> list[Stmt]:
    """Ask for what ``store_tile`` will read and store for ``height`` rows from ``row`` on."""
    width = contraction.panel_width
    flats = [contraction.out_flat(group, row + i, panel * width) for i in range(height)]
    return [statement for flat in flats for statement in epilogue.fetch(flat, width)]


def store_tile(
    contraction: Contraction,
    epilogue: Epilogue,
    lanes: int,
    accumulators: Sequence[Buffer],
    group: Expr,
    panel: Expr,
    row: Expr,
) -> Stmt:
    """The tile of one panel that starts at ``row``, through the epilogue; one accumulator array a row."""
    width = contraction.panel_width
    heights = range(len(accumulators))

    def element(i: int, col: Expr, value: Expr, registers: Registers) -> Stmt:
        at = panel * width + col
        index, flat = contraction.out_index(group, row + i, at), contraction.out_flat(group, row + i, at)
        return seq(epilogue.emit(index, flat, value, registers))

    def full() -> Stmt:
        return seq(
            *(
                with_registers(
                    lanes,
                    lambda lane, registers, i=i, j=j: element(  # type: ignore[misc]
                        i, i64(j) + lane, load(accumulators[i], i64(j) + lane), registers
                    ),
                )
                for i in heights
                for j in range(0, width, lanes)
            )
        )

    def partial() -> Stmt:
        """The columns of the last panel that exist, through memory: registers cannot be indexed."""
        left = simplify(i64(contraction.cols) - panel * width)
        statements: list[Stmt] = []
        for i in heights:
            spill, declaration = allocate([width], contraction.multiply_add.accumulator, "spill", "local")
            statements.append(declaration)
            for j in range(0, width, lanes):
                at = lanes_at(j, lanes)
                statements.append(store(spill, load(accumulators[i], at), at))
            statements.append(
                loop(
                    left,
                    lambda col, i=i, spill=spill: with_registers(  # type: ignore[misc]
                        1, lambda _, registers: element(i, col, load(spill, col), registers)
                    ),
                    "col",
                )
            )
        return seq(statements)

    if as_int(floormod(contraction.cols, width)) == 0:
        return full()
    return if_then((panel + 1) * width <= i64(contraction.cols), full(), partial())
