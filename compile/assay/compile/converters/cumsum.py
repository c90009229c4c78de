"""CumSum as a kernel of ours: TVM's walks one element after the other along any axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from assay.compile.passes.constants import array_of
from assay.compile.schedules.running_sum import running_sum_function

__all__ = ["convert_cumsum"]

_DTYPES = ("float32", "float64", "int32", "int64")


def convert_cumsum(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX CumSum along a constant axis; None otherwise."""
    data, axis = inputs[0], array_of(inputs[1])
    if axis is None or data.ty.shape is None or data.ty.ndim < 1 or str(data.ty.dtype) not in _DTYPES:
        return None
    kernel = running_sum_function(
        list(data.ty.shape),
        str(data.ty.dtype),
        int(axis.item()) % data.ty.ndim,
        exclusive=bool(int(attributes.get("exclusive", 0))),
        reverse=bool(int(attributes.get("reverse", 0))),
    )
    return relax.call_tir(builder.add_func(kernel, "running_sum"), [data], out_ty=data.ty)
