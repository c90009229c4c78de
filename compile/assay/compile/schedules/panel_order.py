"""The order in which units of work, a panel of B times a chunk of rows, are walked."""

from __future__ import annotations

from collections.abc import Callable

from assay.compile.schedules.ir import Expr, Stmt, as_int, bind, floordiv, floormod, i64, minimum

__all__ = ["panel_order"]


def panel_order(
    panels: Expr, chunks: Expr, panel_bytes: int, l2_bytes: int
) -> Callable[[Expr], tuple[Expr, Expr, list[Stmt]]]:
    """From the number of a unit to its panel and its chunk.

    A group's panels take about two L2s: what a thread streams again for the next chunk stays in its share
    of L3. All in one group where they are few or their number is not known.
    """
    most = max(1, l2_bytes * 2 // panel_bytes)
    count = as_int(panels)

    def together(unit: Expr) -> tuple[Expr, Expr, list[Stmt]]:
        panel, statements = bind("panel", floormod(unit, panels))
        return panel, floordiv(unit, panels), statements

    if count is None or count <= most:
        return together
    # A divisor makes all groups alike, which keeps the arithmetic of a unit short.
    size = max(divisor for divisor in range(1, most + 1) if count % divisor == 0)
    size = size if 2 * size >= most else most

    def grouped(unit: Expr) -> tuple[Expr, Expr, list[Stmt]]:
        base, first = bind("base", floordiv(unit, chunks * size) * size)
        left, second = (i64(size), []) if count % size == 0 else bind("left", minimum(panels - base, size))
        rest, third = bind("rest", unit - base * chunks)
        panel, fourth = bind("panel", base + floormod(rest, left))
        return panel, floordiv(rest, left), [*first, *second, *third, *fourth]

    return grouped
