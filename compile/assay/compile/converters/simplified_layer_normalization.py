"""SimplifiedLayerNormalization, ONNX Runtime's RMS norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

__all__ = ["convert_simplified_layer_normalization"]


def convert_simplified_layer_normalization(
    builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int
) -> Any:
    """``x / sqrt(mean(x^2) + epsilon) * scale`` over the last axis."""
    x, scale = inputs[:2]
    axis = int(attributes.get("axis", -1)) % x.ty.ndim
    if axis != x.ty.ndim - 1:
        raise ValueError("only the last axis is supported")
    return relax.op.nn.rms_norm(x, scale, axes=[-1], epsilon=float(attributes.get("epsilon", 1e-5)))
