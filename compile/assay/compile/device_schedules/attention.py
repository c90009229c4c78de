"""Attention, softmax(scale Q K^T + mask) V, on a device: one launch, with running maxima and sums.

The online softmax of Milakov and Gimelshein ("Online normalizer calculation for softmax", 2018) inside the
tiling of Dao et al. ("FlashAttention", 2022): the scores of all keys are never in memory. Scores and results
are computed transposed, as for CPUs, with queries across.
"""

from __future__ import annotations

from assay.compile.device_schedules.attention_problem import read_attention
from assay.compile.device_schedules.attention_tiles import attention_tile
from assay.compile.device_schedules.block_attention import block_attention
from assay.compile.device_schedules.device_stages import scheduled_as
from assay.compile.device_schedules.thread_attention import thread_attention
from assay.compile.schedules.blocks import FusedFunction
from assay.compile.schedules.ir import Expr
from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["fits_attention", "schedule_attention"]


def fits_attention(target: GpuTarget, depth: int, value_depth: int, buffers: int) -> bool:
    """Whether there is a kernel for heads of these sizes that takes as many ``buffers``."""
    if target.most_buffers is not None and buffers > target.most_buffers:
        return False
    return attention_tile(target, depth, value_depth) is not None


def schedule_attention(function: FusedFunction, target: GpuTarget) -> Expr | None:
    """The function scheduled, where it is attention; else None."""
    anchor = function.anchor()
    if anchor is None or anchor.annotations["assay.schedule"] != "attention":
        return None
    problem = read_attention(function, anchor)
    tile = attention_tile(target, problem.depth, problem.value_depth)
    if tile is None:
        return None
    emit = thread_attention if tile.down == 1 else block_attention
    return scheduled_as(function, [emit(problem, tile, target)])
