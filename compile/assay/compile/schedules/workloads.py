"""The workload that an anchor is: what choices and records are looked up by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tvm import tirx

from assay.compile.schedules.blocks import Block, UnreadableFunctionError, loads_of, read_function
from assay.compile.schedules.choices import (
    Workload,
    batched_matmul_workload,
    conv2d_workload,
    packed_matmul_workload,
)
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.ir import Buffer, Expr

__all__ = ["workload_of", "workloads_of"]


def workload_of(anchor: Block, context: ScheduleContext) -> Workload | None:
    """The workload of an anchor at the expected sizes; None for one that leaves nothing to choose."""
    kind = anchor.annotations["assay.schedule"]
    operands = [a.source for a in loads_of(anchor.value) if not a.source.same_as(anchor.output)]
    if any(str(operand.ty.dtype) != "float32" for operand in operands):
        return None
    if kind == "packed_matmul":
        a = operands[0]
        return packed_matmul_workload(
            _product(list(a.ty.shape)[:-1], context),
            context.expected(anchor.spatial_extents[-1]),
            context.expected(a.ty.shape[-1]),
        )
    if kind == "batched_matmul":
        a = operands[0]
        shape = list(a.ty.shape)
        return batched_matmul_workload(
            _product(shape[:-2], context),
            context.expected(shape[-2]),
            context.expected(anchor.spatial_extents[-1]),
            context.expected(shape[-1]),
        )
    if kind == "conv2d":
        return _conv2d(anchor, operands[0], context)
    return None


def workloads_of(module: Any, context: ScheduleContext) -> dict[str, Workload]:
    """The workloads of those kernels of a fused module that are any, by the name of the kernel."""
    found: dict[str, Workload] = {}
    for variable, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc):
            continue
        try:
            anchor = read_function(function).anchor()
        except UnreadableFunctionError:
            continue
        workload = None if anchor is None else workload_of(anchor, context)
        if workload is not None:
            found[str(variable.name_hint)] = workload
    return found


def _conv2d(anchor: Block, x: Buffer, context: ScheduleContext) -> Workload:
    batch, height, width, outputs = (context.expected(extent) for extent in anchor.spatial_extents)
    groups = int(anchor.annotations["assay.groups"])  # type: ignore[call-overload]
    return conv2d_workload(
        (batch, height, width),
        context.expected(x.ty.shape[-1]),
        outputs,
        _pair(anchor.annotations["assay.kernel"]),
        _pair(anchor.annotations["assay.strides"]),
        _pair(anchor.annotations["assay.dilation"]),
        groups,
    )


def _product(extents: Iterable[Expr], context: ScheduleContext) -> int:
    product = 1
    for extent in extents:
        product *= context.expected(extent)
    return product


def _pair(value: object) -> tuple[int, int]:
    first, second = (int(v) for v in value)  # type: ignore[attr-defined]
    return first, second
