"""Everything that is not a contraction: the blocks of a fused function as stages, and their loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.compile.schedules.blocks import Block, FusedFunction
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.elementwise import emit_elementwise, same_space
from assay.compile.schedules.fusion import kept_blocks, plan_stages
from assay.compile.schedules.ir import Buffer, Stmt
from assay.compile.schedules.program import Views
from assay.compile.schedules.reducer import reducer_of
from assay.compile.schedules.reduction import emit_reduction
from assay.compile.schedules.rows import row_group
from assay.compile.schedules.rowwise import emit_rows

__all__ = ["Stages", "emit_stages"]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The loops of some blocks, and the buffers that they leave in memory: the rest needs no workspace."""

    statements: tuple[Stmt, ...]
    stored: tuple[Buffer, ...]


def emit_stages(blocks: Sequence[Block], function: FusedFunction, context: ScheduleContext) -> Stages:
    """Loops for consecutive ``blocks`` of ``function``, none of which has a schedule of its own."""
    plan = plan_stages(blocks, function, context)
    views = Views()
    statements: list[Stmt] = []
    stored: list[Buffer] = []
    remaining = list(plan.stages)
    while remaining:
        rows = row_group(remaining, plan.producers, function, context)
        if rows is not None:
            count = len(rows.stages)
            statements.append(emit_rows(rows, plan.producers, views, context))
            stored += rows.stored
        elif remaining[0].is_reduction:
            count = _with_epilogue(remaining, plan.producers)
            kept = kept_blocks(remaining[:count], plan.producers, function)
            statements.append(emit_reduction(remaining[:count], plan.producers, kept, views, context))
            stored += [block.output for block in kept]
        else:
            count = same_space(remaining, plan.producers)
            statements.append(emit_elementwise(remaining[:count], plan.producers, views, context))
            stored += [block.output for block in remaining[:count]]
        del remaining[:count]
    return Stages(statements=(*views.declarations(), *statements), stored=tuple(stored))


def _with_epilogue(stages: Sequence[Block], producers: Sequence[Block]) -> int:
    """A reduction, and how many stages after it work in place on its results."""
    return same_space(stages, producers) if reducer_of(stages[0]) is not None else 1
