"""Gather that stays inside its data: an index out of range reads the nearest element, never other memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from assay.compile.passes.constants import array_of

__all__ = ["convert_gather"]


def convert_gather(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX Gather along an axis of known size; None for shapes, constants on both sides and unknown sizes.

    ONNX leaves an index outside [-n, n) undefined; it is clamped, since the index may come from a user.
    """
    data, indices = inputs[0], inputs[1]
    if any(isinstance(item, relax.ShapeExpr | tvm.tirx.IntImm) for item in (data, indices)):
        return None
    if not isinstance(data.ty, relax.TensorType) or data.ty.shape is None:
        return None
    axis = int(attributes.get("axis", 0)) % data.ty.ndim
    extent = data.ty.shape[axis]
    if not isinstance(extent, tvm.tirx.IntImm):
        return None
    size = int(extent)
    known = array_of(indices)
    if known is not None:
        if array_of(data) is not None:
            return None
        inside = np.where(known < 0, known + size, known)
        return relax.op.take(data, relax.const(inside.clip(0, size - 1)), axis, mode="clip")
    dtype = str(indices.ty.dtype)
    negative = builder.emit(relax.op.less(indices, relax.const(0, dtype)))
    wrapped = builder.emit(relax.op.add(indices, relax.const(size, dtype)))
    indices = builder.emit(relax.op.where(negative, wrapped, indices))
    return relax.op.take(data, indices, axis, mode="clip")
