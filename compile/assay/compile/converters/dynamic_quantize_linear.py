"""DynamicQuantizeLinear with ONNX's rounding, to the nearest even integer; TVM's form rounds halves away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax, te, tirx

from assay.compile.schedules.requantize import round_to_even, to_integer

__all__ = ["convert_dynamic_quantize_linear"]


def convert_dynamic_quantize_linear(
    builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int
) -> Any:
    """ONNX DynamicQuantizeLinear: uint8 of the range from the least to the largest element, 0 among them."""
    x = inputs[0]
    zero = relax.const(0.0, "float32")
    low = builder.emit(relax.op.minimum(builder.emit(relax.op.min(x)), zero))
    high = builder.emit(relax.op.maximum(builder.emit(relax.op.max(x)), zero))
    scale = builder.emit(builder.call_te(_scale, low, high, primfunc_name_hint="dynamic_scale"))
    point = builder.emit(builder.call_te(_zero_point, low, scale, primfunc_name_hint="dynamic_zero"))
    q = builder.emit(builder.call_te(_quantize, x, scale, point, primfunc_name_hint="dynamic_quantize"))
    return relax.Tuple([q, scale, point])


def _scale(low: Any, high: Any) -> Any:
    return te.compute(
        (),
        lambda: tirx.Select(
            high() > low(), (high() - low()) / tirx.const(255.0, "float32"), tirx.const(1.0, "float32")
        ),
        name="dynamic_scale",
    )


def _zero_point(low: Any, scale: Any) -> Any:
    nothing = tirx.const(0.0, "float32")
    return te.compute((), lambda: to_integer(nothing - low() / scale(), 0, "uint8"), name="dynamic_zero")


def _quantize(x: Any, scale: Any, point: Any) -> Any:
    def element(*i: Any) -> Any:
        # Of [-255, 255] before the zero point is added, whatever that is.
        bounded = tirx.min(
            tirx.max(x[i] / scale(), tirx.const(-256.0, "float32")), tirx.const(256.0, "float32")
        )
        whole = round_to_even(bounded) + tirx.Cast("int32", point())
        limits = tirx.const(0, "int32"), tirx.const(255, "int32")
        return tirx.Cast("uint8", tirx.min(tirx.max(whole, limits[0]), limits[1]))

    return te.compute(x.shape, element, name="dynamic_quantize")
