"""From a fused TIR function to its scheduled form: the anchor's own schedule, stages for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from tvm import tirx

from assay.compile.schedules.attention import emit_attention
from assay.compile.schedules.block_matmul import emit_block_matmul
from assay.compile.schedules.blocks import Block, FusedFunction, read_function
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.conv2d import emit_conv2d
from assay.compile.schedules.depthwise import emit_depthwise_conv2d
from assay.compile.schedules.epilogue import Epilogue, split_epilogue
from assay.compile.schedules.few_elements import emit_stages_for_any_size
from assay.compile.schedules.gemm import emit_batched_matmul, emit_packed_matmul
from assay.compile.schedules.in_place import write_in_place
from assay.compile.schedules.ir import Buffer, Expr, Stmt, seq
from assay.compile.schedules.shuffled_conv2d import emit_shuffled_conv2d
from assay.compile.schedules.winograd_loops import emit_winograd_conv2d
from assay.compile.schedules.workloads import workload_of

__all__ = ["schedule_function"]

AnchorSchedule: TypeAlias = Callable[[FusedFunction, Block, Epilogue, ScheduleContext], Stmt]

_ANCHORS: Mapping[str, AnchorSchedule] = {
    "packed_matmul": emit_packed_matmul,
    "batched_matmul": emit_batched_matmul,
    "block_matmul": emit_block_matmul,
    "conv2d": emit_conv2d,
    "depthwise_conv2d": emit_depthwise_conv2d,
    "winograd_conv2d": emit_winograd_conv2d,
    "shuffled_conv2d": emit_shuffled_conv2d,
}

# Schedules of every block of the function, not of its anchor alone.
_WHOLE: Mapping[str, Callable[[FusedFunction, Block, ScheduleContext], Stmt]] = {
    "attention": emit_attention,
}


def schedule_function(function: Expr, context: ScheduleContext) -> Expr:
    """The scheduled form of a fused PrimFunc.

    Raises UnreadableFunctionError for a function that is not made of plain blocks.
    """
    fused = write_in_place(read_function(function))
    anchor = fused.anchor()
    if anchor is None:
        alone = emit_stages_for_any_size(fused.blocks, fused, context)
        return _assemble(fused, alone.statements, alone.stored)
    whole = _WHOLE.get(str(anchor.annotations["assay.schedule"]))
    if whole is not None:
        return _assemble(fused, [whole(fused, anchor, context)], ())
    position = fused.blocks.index(anchor)
    epilogue, after = split_epilogue(fused, anchor)
    first = emit_stages_for_any_size(fused.blocks[:position], fused, context)
    workload = workload_of(anchor, context)
    chosen = context if workload is None else context.with_choice(context.choice_for(workload))
    own = _ANCHORS[str(anchor.annotations["assay.schedule"])](fused, anchor, epilogue, chosen)
    last = emit_stages_for_any_size(after, fused, context)
    stored = [*first.stored, *last.stored]
    if not epilogue.blocks:
        stored.append(anchor.output)
    return _assemble(fused, (*first.statements, own, *last.statements), stored)


def _assemble(fused: FusedFunction, statements: Sequence[Stmt], stored: Sequence[Buffer]) -> Expr:
    """The function with these statements for its body, and workspace for the intermediates that need it."""
    workspace = [
        tirx.AllocBuffer(buffer)
        for buffer in fused.intermediates
        if any(buffer.same_as(kept) for kept in stored)
    ]
    return tirx.PrimFunc(
        fused.function.params, seq(fused.declarations, workspace, statements), attrs=fused.function.attrs
    )
