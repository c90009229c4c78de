"""From a fused TIR function to its scheduled form: the anchor's own schedule, stages for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from tvm import tirx

from assay.compile.schedules.blocks import Block, FusedFunction, read_function
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.conv2d import emit_conv2d
from assay.compile.schedules.depthwise import emit_depthwise_conv2d
from assay.compile.schedules.epilogue import Epilogue, split_epilogue
from assay.compile.schedules.gemm import emit_batched_matmul, emit_packed_matmul
from assay.compile.schedules.ir import Expr, Stmt, seq
from assay.compile.schedules.stages import emit_stage

__all__ = ["schedule_function"]

AnchorSchedule: TypeAlias = Callable[[FusedFunction, Block, Epilogue, ScheduleContext], Stmt]

_ANCHORS: Mapping[str, AnchorSchedule] = {
    "packed_matmul": emit_packed_matmul,
    "batched_matmul": emit_batched_matmul,
    "conv2d": emit_conv2d,
    "depthwise_conv2d": emit_depthwise_conv2d,
}


def schedule_function(function: Expr, context: ScheduleContext) -> Expr:
    """The scheduled form of a fused PrimFunc.

    Raises UnreadableFunctionError for a function that is not made of plain blocks.
    """
    fused = read_function(function)
    anchor = fused.anchor()
    statements: list[Stmt] = []
    if anchor is None:
        statements += [emit_stage(block, context) for block in fused.blocks]
        in_registers: tuple[Block, ...] = ()
    else:
        epilogue, after = split_epilogue(fused, anchor)
        before = fused.blocks[: fused.blocks.index(anchor)]
        statements += [emit_stage(block, context) for block in before]
        statements.append(
            _ANCHORS[str(anchor.annotations["assay.schedule"])](fused, anchor, epilogue, context)
        )
        statements += [emit_stage(block, context) for block in after]
        in_registers = epilogue.blocks
        if epilogue.blocks:
            in_registers = (anchor, *epilogue.blocks)
    workspace = [
        tirx.AllocBuffer(buffer)
        for buffer in fused.intermediates
        if not any(buffer.same_as(block.output) for block in in_registers)
    ]
    body = seq(workspace, statements)
    return tirx.PrimFunc(function.params, body, attrs=function.attrs)
