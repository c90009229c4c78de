"""Schedules of kernels for GPUs: rules, tried in order, of which the first that fits a kernel wins.

A rule gives a fused function with the loops of its threads, or None where it does not fit. Rules of ours come
before dlight's defaults, one rule a file, one line in ``_OURS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from assay.compile.device_schedules.attention import schedule_attention
from assay.compile.device_schedules.conv2d import schedule_conv2d
from assay.compile.device_schedules.gemm import schedule_gemm
from assay.compile.device_schedules.quantized_product import schedule_quantized_product
from assay.compile.device_schedules.table_rows import schedule_table_rows
from assay.compile.schedules.blocks import FusedFunction, UnreadableFunctionError, read_function
from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.tvm_import import import_tensor_intrinsics

__all__ = ["schedule_kernels"]

_SCHEDULED = "tirx.is_scheduled"
# TOPI's name of the block of a convolution of several groups.
_GROUPED = "group_conv2d"
_OURS: tuple[Callable[[FusedFunction, GpuTarget], Any], ...] = (
    schedule_attention,
    schedule_quantized_product,
    schedule_table_rows,
    schedule_gemm,
    schedule_conv2d,
)


def schedule_kernels(
    module: Any, target: GpuTarget, tvm_target: Any, *, ours: bool = True
) -> tuple[Any, list[str]]:
    """Every kernel of ``module`` that is not scheduled yet in its scheduled form.

    The names of those that have dlight's default come second: all of them without ``ours``.
    """
    from tvm import tirx
    from tvm.s_tir import dlight

    default = [
        dlight.gpu.Matmul(),
        dlight.gpu.GEMV(),
        dlight.gpu.Reduction(),
        dlight.gpu.GeneralReduction(),
        dlight.gpu.Fallback(),
    ]
    if ours:
        module = _with_ours(module, target)
    with tvm_target:
        left = [
            str(variable.name_hint)
            for variable, function in module.functions.items()
            if isinstance(function, tirx.PrimFunc) and _SCHEDULED not in (function.attrs or {})
        ]
        if target.kind == "metal" and any(_may_be_product(module[name]) for name in left):
            import_tensor_intrinsics()  # dlight's product for Metal would, slowly
        module = _with_plain_groups(module, dlight.ApplyDefaultSchedule(dlight.gpu.Fallback()))
        return dlight.ApplyDefaultSchedule(*default)(module), sorted(left)


def _with_ours(module: Any, target: GpuTarget) -> Any:
    """``module`` with the kernels that rules of ours fit scheduled."""
    from tvm import tirx

    for variable, function in module.functions_items():
        if not isinstance(function, tirx.PrimFunc) or _SCHEDULED in (function.attrs or {}):
            continue
        try:
            read = read_function(function)
        except UnreadableFunctionError:
            continue
        made = next((made for rule in _OURS if (made := rule(read, target)) is not None), None)
        if made is not None:
            module.update_func(variable, made)
    return module


def _may_be_product(function: Any) -> bool:
    try:
        return any(len(block.reduction) == 1 for block in read_function(function).blocks)
    except UnreadableFunctionError:
        return True


def _with_plain_groups(module: Any, fallback: Any) -> Any:
    """``module`` with grouped convolutions as plain loops: dlight's other rules compute some wrongly."""
    import tvm
    from tvm import tirx

    grouped = {
        variable: function
        for variable, function in module.functions.items()
        if isinstance(function, tirx.PrimFunc) and _GROUPED in function.script(show_meta=False)
    }
    for variable, function in fallback(tvm.IRModule(grouped)).functions.items():
        module.update_func(module.get_global_var(variable.name_hint), function)
    return module
