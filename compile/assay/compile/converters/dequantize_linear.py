"""DequantizeLinear with constant parameters; a 32-bit constant (a bias) is dequantized here and now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from assay.compile.passes.constants import array_of

__all__ = ["convert_dequantize_linear", "parameters"]


def parameters(
    inputs: Any, attributes: Mapping[str, Any], dtype: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int] | None:
    """Scale, zero point (zeros where it is left out) and axis; scalars where one serves the whole tensor.

    None where they are not constant, not float32, or given for each block of elements.
    """
    if attributes.get("block_size", 0) or attributes.get("output_dtype", 0):
        return None
    scale = array_of(inputs[1])
    zero = None if inputs[2] is None else array_of(inputs[2])
    rank = inputs[0].ty.ndim
    if scale is None or (inputs[2] is not None and zero is None) or scale.dtype != np.float32 or rank < 0:
        return None
    zero = np.zeros(scale.shape, dtype) if zero is None else zero
    axis = int(attributes.get("axis", 1))
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(()), 0
    return scale, np.broadcast_to(zero, scale.shape).copy(), axis % rank


def convert_dequantize_linear(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX DequantizeLinear of integers; None where a parameter is computed, or blocks are scaled."""
    dtype = str(inputs[0].ty.dtype)
    found = parameters(inputs, attributes, dtype)
    if found is None or dtype not in ("uint8", "int8", "int32"):
        return None
    scale, zero, axis = found
    if dtype == "int32":
        bias = array_of(inputs[0])
        if bias is None:
            return None
        shape = [-1 if a == axis else 1 for a in range(bias.ndim)] if scale.ndim else ()
        real = (bias.astype(np.int64) - zero.reshape(shape)).astype(np.float64) * scale.reshape(shape)
        return relax.const(real.astype(np.float32))
    return relax.op.dequantize(
        inputs[0], relax.const(scale), relax.const(zero), axis=axis, out_dtype="float32"
    )
