"""Which stages share one loop over rows: reductions along a row, and what is computed on the same row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tvm import tirx

from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.fusion import kept_blocks, spatial_axes
from assay.compile.schedules.ir import Buffer, Expr, as_int, i64, simplify, substitute
from assay.compile.schedules.nest import stride
from assay.compile.schedules.program import (
    Axis,
    Builder,
    Views,
    make_analyzer,
    make_axes,
    program_expressions,
)
from assay.compile.schedules.reducer import Reducer, reducer_of

__all__ = ["RowGroup", "RowStage", "StageKind", "row_group"]


class StageKind(Enum):
    """What one stage of a group computes."""

    VECTOR = "one value an element"
    SCALAR = "one value a row"
    REDUCTION = "one value a row, from all of its elements"


@dataclass(frozen=True, kw_only=True)
class RowStage:
    """One block of a group. ``time``: the pass it runs in; a SCALAR runs before the pass of that number."""

    block: Block
    kind: StageKind
    iterators: Mapping[Expr, Expr]
    indices: tuple[Expr, ...]
    time: int
    uses: tuple[Buffer, ...]
    reducer: Reducer | None


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Consecutive stages over the same rows and columns; ``stored``: outputs that are used outside."""

    stages: tuple[RowStage, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    stored: tuple[Buffer, ...]


def row_group(
    blocks: Sequence[Block], producers: Sequence[Block], function: FusedFunction, context: ScheduleContext
) -> RowGroup | None:
    """The longest group at the head of ``blocks``; None where they do not reduce along contiguous rows."""
    head = next((block for block in blocks if block.is_reduction), None)
    if head is None or reducer_of(head) is None or not _is_along_row(head, producers, context):
        return None
    row_axes = make_axes(*_split(spatial_axes(head)))
    column_axes = make_axes(*_split(_reduction_axes(head)))
    if not column_axes:
        return None
    stages: list[RowStage] = []
    for block in blocks:
        stage = _stage(block, stages, row_axes, column_axes, producers)
        if stage is None:
            break
        stages.append(stage)
    if not any(stage.block is head for stage in stages):
        return None
    inside = [stage.block for stage in stages]
    stored = tuple(block.output for block in kept_blocks(inside, producers, function))
    return RowGroup(stages=tuple(stages), rows=row_axes, columns=column_axes, stored=stored)


def _split(pairs: Sequence[tuple[Expr, Expr]]) -> tuple[list[Expr], list[Expr]]:
    return [var for var, _ in pairs], [extent for _, extent in pairs]


def _reduction_axes(block: Block) -> list[tuple[Expr, Expr]]:
    return [
        (var, extent)
        for var, extent in zip(block.reduction, block.reduction_extents, strict=True)
        if as_int(extent) != 1
    ]


def _is_along_row(block: Block, producers: Sequence[Block], context: ScheduleContext) -> bool:
    """Whether a reduction's loads are contiguous along its last iterator rather than the last spatial one."""
    spatial = make_axes(block.spatial, block.spatial_extents)
    reduction = make_axes(block.reduction, block.reduction_extents)
    analyzer = make_analyzer((*spatial, *reduction))
    builder = Builder(analyzer, Views(), producers)
    iterators = dict(
        zip((*block.spatial, *block.reduction), (a.var for a in (*spatial, *reduction)), strict=True)
    )
    reducer = reducer_of(block)
    assert reducer is not None
    program = builder.program(builder.value(reducer.operand, iterators))
    offsets = [node.indices[0] for expr in program_expressions(program) for node in loads_of(expr)]

    def misses(axes: Sequence[Axis]) -> int:
        axes = [axis for axis in axes if as_int(axis.extent) != 1]
        if not axes:
            return len(offsets) + 1
        return sum(as_int(stride(offset, axes[-1].var, analyzer)) not in (0, 1) for offset in offsets)

    across = misses(spatial)
    if across <= len(offsets) and not _has_vector(spatial, context):
        across = len(offsets)
    return misses(reduction) < across


def _has_vector(axes: Sequence[Axis], context: ScheduleContext) -> bool:
    last = [axis for axis in axes if as_int(axis.extent) != 1][-1]
    return context.expected(last.extent) >= context.unit.lanes()


def _stage(
    block: Block, before: Sequence[RowStage], rows: Sequence[Axis], columns: Sequence[Axis],
    producers: Sequence[Block],
) -> RowStage | None:  # fmt: skip
    """``block`` as a stage of the group; None where it does not fit."""
    own = spatial_axes(block)
    axes = [*rows]
    if block.is_reduction:
        kind, pairs = StageKind.REDUCTION, [*own, *_reduction_axes(block)]
        axes += columns
        if len(own) != len(rows):
            return None
    elif len(own) == len(rows):
        kind, pairs = StageKind.SCALAR, own
    else:
        kind, pairs = StageKind.VECTOR, own
        axes += columns
    if len(pairs) != len(axes):
        return None
    if not all(
        as_int(simplify(i64(extent) - axis.extent)) == 0
        for (_, extent), axis in zip(pairs, axes, strict=True)
    ):
        return None
    reducer = reducer_of(block) if block.is_reduction else None
    if block.is_reduction and reducer is None:
        return None
    iterators: dict[Expr, Expr] = {var: i64(0) for var in (*block.spatial, *block.reduction)}
    iterators.update({var: axis.var for (var, _), axis in zip(pairs, axes, strict=True)})
    builder = Builder(make_analyzer((*rows, *columns)), Views(), producers)
    builder.values = [(s.block.output, s.indices, tirx.Var("held", s.block.output.ty.dtype)) for s in before]
    builder.value(block.value if reducer is None else reducer.operand, iterators)
    if builder.misplaced:
        return None
    used = [stage for stage in before if any(b.same_as(stage.block.output) for b in builder.used)]
    if kind is StageKind.SCALAR and any(stage.kind is StageKind.VECTOR for stage in used):
        return None
    return RowStage(
        block=block,
        kind=kind,
        iterators=iterators,
        indices=tuple(simplify(i64(substitute(index, iterators))) for index in block.indices),
        time=max((s.time + (s.kind is StageKind.REDUCTION) for s in used), default=0),
        uses=tuple(stage.block.output for stage in used),
        reducer=reducer,
    )
