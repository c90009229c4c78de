"""Schedules of kernels for GPUs: rules, tried in order, of which the first that fits a kernel wins.

A rule is what TVM's dlight calls a ``ScheduleRule``: ``rule.apply(function, target, tunable)`` gives a
scheduled ``s_tir.Schedule`` of a PrimFunc, or None where it does not fit. Rules of ours come before dlight's
defaults, one rule a file, one line in ``_OURS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from assay.compile.targets.gpu_target import GpuTarget
from assay.compile.tvm_import import import_tensor_intrinsics

__all__ = ["schedule_kernels"]

# TOPI's name of the block of a convolution of several groups.
_GROUPED = "group_conv2d"
# Each gives a rule for a target, or None where it has none for it.
_OURS: tuple[Callable[[GpuTarget], Any], ...] = ()


def schedule_kernels(module: Any, target: GpuTarget, tvm_target: Any) -> tuple[Any, list[str]]:
    """Every kernel of ``module`` that is not scheduled yet in its scheduled form.

    The names of those that have dlight's default come second.
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
    if target.kind == "metal":  # dlight's product for Metal imports them
        import_tensor_intrinsics()
    ours = [rule for make in _OURS if (rule := make(target)) is not None]
    with tvm_target:
        if ours:
            module = dlight.ApplyDefaultSchedule(*ours)(module)
        left = [
            str(variable.name_hint)
            for variable, function in module.functions.items()
            if isinstance(function, tirx.PrimFunc) and "tirx.is_scheduled" not in (function.attrs or {})
        ]
        module = _with_plain_groups(module, dlight.ApplyDefaultSchedule(dlight.gpu.Fallback()))
        return dlight.ApplyDefaultSchedule(*default)(module), sorted(left)


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
