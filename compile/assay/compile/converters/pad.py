"""Pad with a constant as an operator that the layout pass understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from assay.compile.passes.constants import array_of

__all__ = ["convert_pad"]


def convert_pad(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX Pad in constant mode with constant widths; None otherwise."""
    data = inputs[0]
    mode = attributes.get("mode", b"constant")
    if (mode.decode() if isinstance(mode, bytes) else mode) != "constant" or data.ty.ndim < 0:
        return None
    if opset < 11:
        pads, value = list(attributes["pads"]), float(attributes.get("value", 0.0))
    else:
        widths = array_of(inputs[1])
        given = inputs[2]
        fill = array_of(given) if given is not None else None
        if widths is None or (given is not None and fill is None):
            return None
        pads, value = [int(w) for w in widths], float(fill.item()) if fill is not None else 0.0
    rank = data.ty.ndim
    axes = list(range(rank))
    if opset >= 18 and inputs[3] is not None:
        chosen = array_of(inputs[3])
        if chosen is None:
            return None
        axes = [int(axis) % rank for axis in chosen]
    if any(p < 0 for p in pads):
        return None
    before, after = (
        dict(zip(axes, pads[: len(axes)], strict=True)),
        dict(zip(axes, pads[len(axes) :], strict=True)),
    )
    flat = [width for axis in range(rank) for width in (before.get(axis, 0), after.get(axis, 0))]
    if not any(flat):
        return data
    return relax.op.nn.pad(data, flat, "constant", value)
