"""Fused kernels in forms that a GPU's language and buffers have, before they are scheduled."""

from __future__ import annotations

from typing import Any

from tvm import relax

from assay.compile.device_schedules.row_kernels import to_device_rows
from assay.compile.passes.narrow_storage import narrow_storage
from assay.compile.passes.wgsl_math import legalize_wgsl
from assay.compile.schedules.recurrent_kernel import SCHEDULED
from assay.compile.targets.gpu_target import GpuTarget
from assay.errors import UnsupportedOperatorError

__all__ = ["refuse_scans", "to_device_forms"]

# What TVM's kernels for GPUs compute wrongly where groups do not run in lockstep, or with a library.
_SCANS = ("sort", "argsort", "topk", "cumsum", "cumprod", "multinomial_from_uniform", "unique", "bucketize")


def refuse_scans(module: Any) -> Any:
    """``module``, which has no sort or scan but CumSum and TopK; those are kernels by now.

    Raises UnsupportedOperatorError, naming the operator, where it has another.
    """
    found: set[str] = set()

    def note(expr: Any) -> None:
        name = str(getattr(getattr(expr, "op", None), "name", "")).removeprefix("relax.")
        if name in _SCANS:
            found.add(name)

    for function in module.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, note)
    if found:
        raise UnsupportedOperatorError(
            f"There is no kernel for GPUs that is known to be right for {', '.join(sorted(found))}.",
            hint="CumSum along a constant axis and TopK with a constant k can be compiled.",
        )
    return module


def to_device_forms(module: Any, target: GpuTarget) -> Any:
    """``module`` without the dtypes that ``target`` lacks, without kernels and functions that are the CPU's.

    Raises UnsupportedOperatorError for a kernel that has no such form.
    """
    module = to_device_rows(module)
    for variable, function in module.functions_items():
        if SCHEDULED in (getattr(function, "attrs", None) or {}):
            raise UnsupportedOperatorError(f"The operator {variable.name_hint} has a kernel for CPUs only.")
    module = narrow_storage(module, target.without)
    return legalize_wgsl(module) if target.kind == "webgpu" else module
