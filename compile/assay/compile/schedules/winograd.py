"""3x3 convolution by Winograd's minimal filtering: fewer multiplications than there are taps.

Output tiles of m x m pixels are taken in blocks. The (m + 2)^2 inputs of each tile are transformed, channel
by channel, into as many numbers; for each of these positions a small matrix product over the channels, on the
shared micro-kernel; the results of a tile are transformed back and leave through the epilogue. Here are the
tensor expressions, of float32 and of 8-bit integers, and their filters; ``winograd_loops.py`` has the loops.

Integers are exact: with filters that are transformed into integers ``scale^2`` times as large, every number
on the way is one, of 16 bits in the products and of 32 in their sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from assay.compile.schedules.conv2d import ConvGeometry
from assay.compile.schedules.conv_plan import ConvPlan
from assay.compile.schedules.gemm import pack_panels
from assay.compile.schedules.int8 import pack_integer_panels
from assay.compile.schedules.ir import as_int
from assay.compile.schedules.multiply_add import PairsOf16, form_name
from assay.compile.schedules.winograd_matrices import (
    FILTER,
    Filtering,
    Matrix,
    filtering,
    integer_filtering,
    transform_filters,
    transform_integer_filters,
)

__all__ = [
    "integer_winograd_conv2d",
    "pack_integer_winograd_filters",
    "pack_winograd_filters",
    "winograd_conv2d",
]

# The largest magnitude of an 8-bit integer less its zero point.
_LARGEST = 255


def pack_winograd_filters(filters: npt.NDArray[Any], plan: ConvPlan) -> npt.NDArray[np.float32]:
    """Pack OHWI filters ``[O, 3, 3, I]`` as ``[P / panels, n * n, panels, I, NR]``, n = m + 2."""
    transformed = transform_filters(filters, plan.algorithm.outputs)
    matrices = transformed.reshape(-1, *transformed.shape[2:])
    return _in_groups(np.stack([pack_panels(matrix, plan.panel_width) for matrix in matrices]), plan)


def pack_integer_winograd_filters(filters: npt.NDArray[Any], plan: ConvPlan) -> npt.NDArray[np.int16] | None:
    """Pack OHWI filters of integers as ``[P / panels, n * n, panels, ceil(I / 2), NR, 2]``, n = m + 2.

    None where a transformed filter could leave 16 bits, or a sum of its products 32, whatever the input is.
    """
    outputs = plan.algorithm.outputs
    transformed = transform_integer_filters(filters, outputs)
    data = np.abs(np.array(integer_filtering(outputs).data, np.int64)).sum(1).max() ** 2 * _LARGEST
    # As if every product of a channel came with its largest magnitude to each of its outputs.
    sums = np.abs(transformed).sum((0, 1, 2)).max(initial=0)
    if np.abs(transformed).max(initial=0) >= 2**15 or sums * data >= 2**31:
        return None
    matrices = transformed.astype(np.int16).reshape(-1, *transformed.shape[2:])
    depth = PairsOf16().depth
    packed = np.stack([pack_integer_panels(matrix, plan.panel_width, depth) for matrix in matrices])
    return _in_groups(packed, plan)


def _in_groups(packed: npt.NDArray[Any], plan: ConvPlan) -> npt.NDArray[Any]:
    """``[n * n, P, ...]`` with the panels that are multiplied together next to each other."""
    grouped = packed.reshape(len(packed), -1, plan.panels, *packed.shape[2:])
    return np.ascontiguousarray(grouped.swapaxes(0, 1))


def _entry(matrix: Matrix, row: Any, column: Any, dtype: str) -> Any:
    """TE: an entry of a constant matrix."""
    result = tirx.const(0, dtype)
    for i, line in enumerate(matrix):
        for j, value in enumerate(line):
            if value:
                at = tirx.all(row == i, column == j)
                number = float(value) if dtype == "float32" else int(value)
                result = tirx.Select(at, tirx.const(number, dtype), result)
    return result


def winograd_conv2d(x: Any, b: Any, geometry: ConvGeometry, channels: int, plan: ConvPlan) -> Any:
    """TE: NHWC ``x`` convolved with packed filters (see pack_winograd_filters) to ``channels`` outputs.

    ``A^T [sum_i U_i * (B^T d_i B)] A`` as one sum over positions p, q, taps r, s of a tile and channels i.
    """
    return _filtered(x, b, filtering(plan.algorithm.outputs), geometry, channels, plan, {})


def integer_winograd_conv2d(
    x: Any, b: Any, *, geometry: ConvGeometry, channels: int, plan: ConvPlan, zero: int
) -> Any:
    """TE: int32 NHWC, uint8 ``x`` less ``zero`` convolved with packed filters of integers; exact."""
    matrices = integer_filtering(plan.algorithm.outputs)
    attributes = {"assay.form": form_name(PairsOf16()), "assay.zero": zero}
    scaled = _filtered(x, b, matrices, geometry, channels, plan, attributes)
    shift = tirx.const(2 * (matrices.scale.bit_length() - 1), "int32")
    return te.compute(scaled.shape, lambda *i: scaled[i] >> shift, name="unscale")


def _filtered(
    x: Any, b: Any, matrices: Filtering, geometry: ConvGeometry, channels: int, plan: ConvPlan,
    attributes: dict[str, Any],
) -> Any:  # fmt: skip
    """TE: the convolution, ``scale^2`` times as large, in the type of its sums."""
    zero, dtype = attributes.get("assay.zero", 0), "int32" if attributes else "float32"
    m, n = matrices.outputs, matrices.inputs
    top, left, bottom, right = geometry.padding
    batch, height, width, in_channels = x.shape
    extents = (
        geometry.output_extent(0, height + top + bottom),
        geometry.output_extent(1, width + left + right),
    )
    p, q, r, s = (te.reduce_axis((0, n), name) for name in "pqrs")
    i = te.reduce_axis((0, in_channels), "i")
    together, panel = plan.panels, plan.panel_width

    def element(image: Any, h: Any, w: Any, o: Any) -> Any:
        row, column = tirx.floordiv(h, m) * m + r - top, tirx.floordiv(w, m) * m + s - left
        pixel = x[image, row, column, i].astype(dtype)
        pixel = tirx.if_then_else(
            tirx.all(row >= 0, row < height, column >= 0, column < width),
            pixel - tirx.const(zero, dtype) if zero else pixel,
            tirx.const(0, dtype),
        )
        number, inside = tirx.floordiv(o, panel), tirx.floormod(o, panel)
        place = [tirx.floordiv(number, together), p * n + q, tirx.floormod(number, together)]
        depth = 1 if len(b.shape) == len(place) + 2 else int(b.shape[-1])
        last = [i, inside] if depth == 1 else [tirx.floordiv(i, depth), inside, tirx.floormod(i, depth)]
        weight = b[(*place, *last)].astype(dtype)
        factor = _entry(matrices.data, p, r, dtype) * _entry(matrices.data, q, s, dtype)
        back = _entry(matrices.inverse, tirx.floormod(h, m), p, dtype) * _entry(
            matrices.inverse, tirx.floormod(w, m), q, dtype
        )
        return te.sum(pixel * weight * (factor * back), axis=[p, q, r, s, i])

    return te.compute(
        (batch, *extents, channels),
        element,
        name="winograd_conv2d",
        attrs={
            "assay.schedule": "winograd_conv2d",
            "assay.outputs": m,
            "assay.operations": 2 * FILTER**2 * (as_int(in_channels) or 1),
            "assay.tiles": plan.tiles,
            "assay.padding": list(geometry.padding),
            **attributes,
        },
    )
