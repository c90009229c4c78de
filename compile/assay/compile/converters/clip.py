"""Clip with constant bounds as elementwise operators: TVM's form tests the bounds for NaN at run time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import relax

from assay.compile.passes.constants import array_of

__all__ = ["convert_clip"]


def convert_clip(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX Clip; None where a bound is not a constant."""
    data = inputs[0]
    if "float" not in str(data.ty.dtype):
        return None
    bounds = []
    for position, name, unbounded in ((1, "min", -math.inf), (2, "max", math.inf)):
        value = float(attributes.get(name, unbounded))
        if opset >= 11 and inputs[position] is not None:
            array = array_of(inputs[position])
            if array is None:
                return None
            value = float(array.item())
        bounds.append(unbounded if math.isnan(value) else value)
    low, high = bounds
    if low == 0.0 and high == math.inf:
        return relax.op.nn.relu(data)
    result = data
    if low != -math.inf:
        result = builder.emit(relax.op.maximum(result, relax.const(low, str(data.ty.dtype))))
    if high != math.inf:
        result = relax.op.minimum(result, relax.const(high, str(data.ty.dtype)))
    return result
