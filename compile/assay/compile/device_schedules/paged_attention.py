"""Attention over a paged cache on a device: one launch for few rows, several for many."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from assay.compile.device_schedules.paged_kernels import PagedKernels
from assay.compile.device_schedules.paged_step import StepKernel
from assay.compile.device_schedules.threads import launched_if, marked
from assay.compile.schedules.ir import seq
from assay.compile.schedules.paged_problem import GATHERED, PagedBuffers, PagedProblem

__all__ = ["device_paged_attention"]

# Rows that one launch computes: each turns and rounds the rows of the call that it sees by itself. Of as many
# sequences as rows, most have one.
_FEW_ROWS = 8


def device_paged_attention(problem: PagedProblem, most_buffers: int | None) -> Any:
    """A scheduled PrimFunc of the parameters of ``PagedBuffers``.

    ``most_buffers``: that a kernel may take, at least 8; None for any number.
    """
    buffers = PagedBuffers.declare(problem)
    kernels = PagedKernels(problem, buffers)
    turns_heads = most_buffers is None or len(buffers.params()) <= most_buffers
    step = StepKernel(problem, buffers, turned=None if turns_heads else kernels.heads)
    rows = buffers.tokens
    few = tirx.Or(rows <= _FEW_ROWS, rows <= buffers.sequences)
    many = tirx.And(rows > _FEW_ROWS, rows > buffers.sequences)
    workspace, turn = kernels.turn()
    body = [
        *workspace,
        *(launched_if(many, kernel) if turns_heads else kernel for kernel in turn),
        *(launched_if(many, kernel) for kernel in (kernels.append(), kernels.attend())),
        launched_if(few, step.step()),
    ]
    return marked(buffers.params(), seq(body), "paged_attention").with_attr(GATHERED, buffers.gathered)
