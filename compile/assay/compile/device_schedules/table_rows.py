"""Rows of tables of 4, 8 and 16 bits on a device, with all that is elementwise before and behind them."""

from __future__ import annotations

from collections.abc import Sequence

from assay.compile.device_schedules.device_stages import element_kernel, scheduled_as
from assay.compile.device_schedules.quantized_weights import BLOCK_ROWS
from assay.compile.schedules.blocks import Block, FusedFunction
from assay.compile.schedules.ir import Expr, Stmt, store, substitute
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["schedule_table_rows"]


def schedule_table_rows(function: FusedFunction, target: GpuTarget) -> Expr | None:
    """The function as a thread for each element of a result, where it reads rows of tables; else None."""
    if not any(block.annotations.get("assay.schedule") == BLOCK_ROWS for block in function.blocks):
        return None
    if not all(_is_elementwise(block) for block in function.blocks):
        return None
    results = [block for block in function.blocks if function.is_param(block.output)]
    return scheduled_as(function, [_kernel(function, block) for block in results])


def _is_elementwise(block: Block) -> bool:
    return not block.is_reduction and all(
        index.same_as(place) for index, place in zip(block.indices, block.spatial, strict=True)
    )


def _kernel(function: FusedFunction, block: Block) -> Stmt:
    def element(index: Sequence[Expr]) -> Stmt:
        return store(block.output, _value(function, block, index), *index)

    return element_kernel(block.spatial_extents, element)


def _value(function: FusedFunction, block: Block, index: Sequence[Expr]) -> Expr:
    """An element of ``block``, computed from what the caller gives alone."""

    def computed(node: Expr) -> Expr | None:
        maker = next((each for each in function.blocks if each.output.same_as(node.source)), None)
        return None if maker is None else _value(function, maker, node.indices)

    return substitute(substitute(block.value, {}, computed), dict(zip(block.spatial, index, strict=True)))
