"""The table of verified errors that `verify`, `build` and `inspect` show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from assay.runtime.manifest import VerifiedCase

__all__ = ["cases_table", "worst_case"]


def cases_table(cases: Sequence[VerifiedCase], *, title: str) -> Table:
    """One row for each output at each size."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("sizes", overflow="fold")
    table.add_column("output", overflow="fold")
    headings = ["max absolute", "max relative", "cosine", "tolerance"]
    rows = any(case.row_error is not None for case in cases)
    for heading in [*headings, "row error", "its tolerance"] if rows else headings:
        table.add_column(heading, justify="right")
    for case in cases:
        own = [] if case.row_error is None else [f"{case.row_error:.2e}", f"{case.row_tolerance:g}"]
        table.add_row(
            ", ".join(f"{name}={size}" for name, size in case.sizes.items()) or "fixed",
            case.output,
            f"{case.max_absolute_error:.2e}",
            f"{case.max_relative_error:.2e}",
            f"{case.cosine_similarity:.6f}",
            f"{case.absolute_tolerance:g} + {case.relative_tolerance:g} relative",
            *own,
        )
    return table


def worst_case(cases: Sequence[VerifiedCase]) -> VerifiedCase | None:
    """The case with the largest absolute error; None where there is none."""
    return max(cases, key=lambda case: case.max_absolute_error, default=None)
