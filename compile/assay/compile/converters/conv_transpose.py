"""Transposed convolution as a convolution to the pixels between the strides, and their interleaving.

With stride S, output o takes input i by tap k where o + P = i * S + k: each residue of o + P modulo S is a
plain convolution with every S-th tap (Shi et al., "Is the deconvolution layer the same as a convolutional
layer?", 2016). One convolution computes all residues as channels, which then become pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from assay.compile.passes.constants import array_of
from assay.compile.schedules.ir import as_int

__all__ = ["convert_conv_transpose"]


def _pads(attributes: Mapping[str, Any], needed: list[int], rank: int) -> tuple[list[int], list[int]] | None:
    """Padding before and after each axis; ``needed`` is what the output's wanted shape takes off in total."""
    auto = attributes.get("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else str(auto)
    if auto in ("SAME_UPPER", "SAME_LOWER") or "output_shape" in attributes:
        small = [total // 2 for total in needed]
        large = [total - half for total, half in zip(needed, small, strict=True)]
        if any(total < 0 for total in needed):
            return None
        return (large, small) if auto == "SAME_LOWER" else (small, large)
    pads = [int(p) for p in attributes.get("pads", [0] * (2 * rank))]
    return pads[:rank], pads[rank:]


def _residue_filters(weight: npt.NDArray[Any], groups: int, strides: tuple[int, int]) -> npt.NDArray[Any]:
    """Filters ``[C, O / g, KH, KW]`` as OIHW ``[g * SH * SW * O / g, C / g, JH, JW]``, flipped."""
    channels, outputs, height, width = weight.shape
    (down, right), per_group = strides, channels // groups
    tall, wide = -(-height // down), -(-width // right)
    padded = np.zeros((channels, outputs, tall * down, wide * right), weight.dtype)
    padded[:, :, :height, :width] = weight
    taps = padded.reshape(groups, per_group, outputs, tall, down, wide, right)[:, :, :, ::-1, :, ::-1]
    moved = taps.transpose(0, 4, 6, 2, 1, 3, 5)
    return np.ascontiguousarray(moved.reshape(groups * down * right * outputs, per_group, tall, wide))


def convert_conv_transpose(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX ConvTranspose of NCHW images with constant weights, undilated; None otherwise."""
    data, weight = inputs[0], array_of(inputs[1])
    if weight is None or weight.ndim != 4 or data.ty.shape is None or str(data.ty.dtype) != "float32":
        return None
    if any(int(d) != 1 for d in attributes.get("dilations", (1, 1))):
        return None
    batch, _, *image = list(data.ty.shape)
    groups = int(attributes.get("group", 1))
    down, right = (int(s) for s in attributes.get("strides", (1, 1)))
    more = [int(p) for p in attributes.get("output_padding", (0, 0))]
    source, kernel, strides = [as_int(extent) for extent in image], weight.shape[2:], (down, right)
    if None in source:
        return None
    whole = [((n or 0) - 1) * s + k + m for n, s, k, m in zip(source, strides, kernel, more, strict=True)]
    wanted = attributes.get("output_shape") or [(n or 0) * s for n, s in zip(source, strides, strict=True)]
    pads = _pads(attributes, [w - int(o) for w, o in zip(whole, list(wanted)[-2:], strict=True)], 2)
    if pads is None:
        return None
    before, after = pads
    filters = _residue_filters(weight, groups, strides)
    tall, wide = filters.shape[2:]
    made = [((n or 0) + j - 1) for n, j in zip(source, (tall, wide), strict=True)]
    ends = [w - a for w, a in zip(whole, after, strict=True)]
    if any(end > m * s for end, m, s in zip(ends, made, strides, strict=True)):
        return None
    conv = builder.emit(
        relax.op.nn.conv2d(
            data,
            relax.const(filters),
            padding=(tall - 1, wide - 1, tall - 1, wide - 1),
            groups=groups,
            data_layout="NCHW",
            kernel_layout="OIHW",
        )
    )
    outputs = weight.shape[1]
    last = builder.emit(relax.op.permute_dims(conv, [0, 2, 3, 1]))
    split = builder.emit(relax.op.reshape(last, [batch, *made, groups, down, right, outputs]))
    turned = builder.emit(relax.op.permute_dims(split, [0, 1, 4, 2, 5, 3, 6]))
    pixels = builder.emit(
        relax.op.reshape(turned, [batch, made[0] * down, made[1] * right, groups * outputs])
    )
    cut = builder.emit(relax.op.strided_slice(pixels, [1, 2], before, ends))
    if inputs[2] is not None:
        bias = inputs[2] if array_of(inputs[2]) is None else relax.const(array_of(inputs[2]))
        cut = builder.emit(relax.op.add(cut, bias))
    return relax.op.permute_dims(cut, [0, 3, 1, 2])
