"""Stages whose loads and stores are contiguous along different axes: square tiles turned in registers."""

from __future__ import annotations

from collections.abc import Sequence

from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import Buffer, Expr, Stmt
from assay.compile.schedules.program import Axis, Program

__all__ = ["emit_transposed", "transposed_axis"]


def transposed_axis(
    axes: Sequence[Axis], program: Program, offsets: Sequence[Expr], context: ScheduleContext
) -> int | None:
    """The axis that the loads are contiguous along, where the innermost is not it; else None."""
    return None


def emit_transposed(
    axes: Sequence[Axis], other: int, program: Program, offsets: Sequence[Expr], outputs: Sequence[Buffer],
    context: ScheduleContext, *, serial: bool,
) -> Stmt:  # fmt: skip
    """The loops over tiles."""
    raise NotImplementedError
