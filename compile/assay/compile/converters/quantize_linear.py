"""QuantizeLinear with constant parameters, of which one for the whole tensor is a scalar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from assay.compile.converters.dequantize_linear import parameters

__all__ = ["convert_quantize_linear"]


def convert_quantize_linear(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX QuantizeLinear to 8-bit integers; None where a parameter is computed, or blocks are scaled."""
    dtype = "uint8" if inputs[2] is None else str(inputs[2].ty.dtype)
    found = parameters(inputs, attributes, dtype)
    if found is None or dtype not in ("uint8", "int8"):
        return None
    scale, zero, axis = found
    return relax.op.quantize(inputs[0], relax.const(scale), relax.const(zero), axis=axis, out_dtype=dtype)
