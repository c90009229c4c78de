"""Local response normalization over channels, written for channels last so that it vectorizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax, te, tirx

__all__ = ["convert_lrn"]


def convert_lrn(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX LRN of NCHW data; the layout pass cancels the transpositions around it."""
    data = inputs[0]
    if data.ty.ndim != 4:
        return None
    size = int(attributes["size"])
    alpha, beta = float(attributes.get("alpha", 1e-4)), float(attributes.get("beta", 0.75))
    bias = float(attributes.get("bias", 1.0))

    def lrn(x: Any) -> Any:
        batch, height, width, channels = x.shape
        before = (size - 1) // 2
        squares = te.compute(
            (batch, height, width, channels + size - 1),
            lambda n, h, w, c: tirx.if_then_else(
                tirx.all(c >= before, c < channels + before),
                x[n, h, w, c - before] * x[n, h, w, c - before],
                tirx.const(0.0, "float32"),
            ),
            name="squares",
        )
        window = te.reduce_axis((0, size), "window")
        total = te.compute(
            x.shape,
            lambda n, h, w, c: te.sum(squares[n, h, w, c + window], axis=window),
            name="total",
        )
        return te.compute(
            x.shape,
            lambda n, h, w, c: x[n, h, w, c] * _power(bias + (alpha / size) * total[n, h, w, c], -beta),
            name="lrn",
        )

    channels_last = builder.emit(relax.op.permute_dims(data, [0, 2, 3, 1]))
    normalized = builder.emit_te(lrn, channels_last)
    return relax.op.permute_dims(normalized, [0, 3, 1, 2])


def _power(base: Any, exponent: float) -> Any:
    """base ** exponent for a positive base; the usual 0.75 by square roots."""
    if exponent == -0.75:
        root = tirx.sqrt(base)
        return tirx.const(1.0, "float32") / (root * tirx.sqrt(root))
    return tirx.exp(tirx.const(exponent, "float32") * tirx.log(base))
