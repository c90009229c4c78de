"""What activations a model has: with and without rounding, and at the inputs of its products."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["without_rounding"]


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the same weights that rounds no activation: products in float32, no round trips."""
    import onnx

    from assay.compile.quantize.dequantize import drop_round_trips

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type == "MatMulNBits":
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = 0
    return drop_round_trips(copy)
