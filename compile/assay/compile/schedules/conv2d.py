"""Direct NHWC convolution on the shared micro-kernel: rows are output pixels, columns output channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from assay.compile.schedules.amx import emit_tiles, fits_tiles
from assay.compile.schedules.blocks import Block, FusedFunction
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.contraction import Contraction
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.gemm import pack_panels, packed_operands, step_order
from assay.compile.schedules.ir import Expr, Stmt, as_int, flat_view, floordiv, floormod, i64, seq, simplify
from assay.compile.schedules.microkernel import emit_contraction
from assay.compile.schedules.multiply_add import element_bytes, form_named

__all__ = ["ConvGeometry", "conv2d", "emit_conv2d", "pack_filters", "pad_spatial"]


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """Kernel size, strides and dilation as (height, width); padding as (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int

    def output_extent(self, axis: int, padded: Any) -> Any:
        """Outputs along axis 0 (height) or 1 (width) of a padded input of that extent."""
        span = (self.kernel[axis] - 1) * self.dilation[axis]
        return (padded - span - 1) // self.strides[axis] + 1

    @property
    def is_pointwise(self) -> bool:
        """Whether the convolution is a matrix product over pixels."""
        return self.kernel == (1, 1) and self.strides == (1, 1) and self.groups == 1 and not any(self.padding)


def pack_filters(filters: npt.NDArray[Any], groups: int, width: int) -> npt.NDArray[Any]:
    """Pack OHWI filters ``[O, KH, KW, I / groups]`` as panels ``[groups * P, KH * KW * I / groups, NR]``."""
    per_group = filters.shape[0] // groups
    packed = [
        pack_panels(filters[g * per_group : (g + 1) * per_group].reshape(per_group, -1).T, width)
        for g in range(groups)
    ]
    return np.ascontiguousarray(np.concatenate(packed))


def pad_spatial(x: Any, padding: Sequence[int]) -> Any:
    """TE: NHWC ``x`` with zeros around height and width."""
    top, left, bottom, right = padding
    batch, height, width, channels = x.shape
    if not any(padding):
        return x
    return te.compute(
        (batch, height + top + bottom, width + left + right, channels),
        lambda n, h, w, c: tirx.if_then_else(
            tirx.all(h >= top, h < height + top, w >= left, w < width + left),
            x[n, h - top, w - left, c],
            tirx.const(0.0, x.dtype),
        ),
        name="pad",
    )


def conv2d(x: Any, b: Any, geometry: ConvGeometry, channels: int) -> Any:
    """TE: NHWC ``x`` convolved with packed filters (see pack_filters) to ``channels`` outputs."""
    padded = pad_spatial(x, geometry.padding)
    batch, height, width, in_channels = padded.shape
    kh, kw = geometry.kernel
    per_group_in = int(in_channels) // geometry.groups
    per_group_out = channels // geometry.groups
    panel = int(b.shape[2])
    panels = -(-per_group_out // panel)
    r, s, i = (
        te.reduce_axis((0, kh), "r"),
        te.reduce_axis((0, kw), "s"),
        te.reduce_axis((0, per_group_in), "i"),
    )

    def element(n: Any, h: Any, w: Any, o: Any) -> Any:
        group, inside = tirx.floordiv(o, per_group_out), tirx.floormod(o, per_group_out)
        pixel = padded[
            n,
            h * geometry.strides[0] + r * geometry.dilation[0],
            w * geometry.strides[1] + s * geometry.dilation[1],
            group * per_group_in + i,
        ]
        weight = b[
            group * panels + tirx.floordiv(inside, panel),
            (r * kw + s) * per_group_in + i,
            tirx.floormod(inside, panel),
        ]
        return te.sum(pixel * weight, axis=[r, s, i])

    return te.compute(
        (batch, geometry.output_extent(0, height), geometry.output_extent(1, width), channels),
        element,
        name="conv2d",
        attrs={
            "assay.schedule": "conv2d",
            "assay.kernel": list(geometry.kernel),
            "assay.strides": list(geometry.strides),
            "assay.dilation": list(geometry.dilation),
            "assay.groups": geometry.groups,
        },
    )


def _pair(value: Any) -> tuple[int, int]:
    first, second = (int(v) for v in value)
    return first, second


def emit_conv2d(function: FusedFunction, anchor: Block, epilogue: Epilogue, context: ScheduleContext) -> Stmt:
    """Output pixels are the rows; in NHWC one loop walks the taps of a filter row and their channels."""
    x, b, offsets = packed_operands(anchor)
    order, more = step_order(anchor, offsets)
    kernel, strides, dilation = (
        _pair(anchor.annotations[f"assay.{k}"]) for k in ("kernel", "strides", "dilation")
    )
    groups = int(anchor.annotations["assay.groups"])  # type: ignore[call-overload]
    batch, height, width, channels = x.ty.shape
    _, out_height, out_width, out_channels = anchor.spatial_extents
    per_group_in, per_group_out = int(channels) // groups, int(out_channels) // groups
    panel_width = as_int(b.ty.shape[2])
    assert panel_width is not None
    form = form_named(anchor.annotations.get("assay.form"))
    panel_size = int(b.ty.shape[1]) * panel_width * form.depth
    panels = -(-per_group_out // panel_width)
    x_flat, x_declaration = flat_view(x)
    b_flat, b_declaration = flat_view(b)
    row_stride = simplify(i64(width) * int(channels))

    def pixel(row: Expr) -> tuple[Expr, Expr, Expr]:
        w, rest = floormod(row, out_width), floordiv(row, out_width)
        return floordiv(rest, out_height), floormod(rest, out_height), w

    def a_offset(group: Expr, row: Expr) -> Expr:
        n, h, w = pixel(row)
        start = (n * i64(height) + h * strides[0]) * row_stride + w * (strides[1] * int(channels))
        return start + group * per_group_in

    def out_index(group: Expr, row: Expr, col: Expr) -> list[Expr]:
        return [*pixel(row), group * per_group_out + col]

    reduction: tuple[tuple[int, Expr], ...] = ((kernel[0], simplify(row_stride * dilation[0])),)
    inner = kernel[1] * per_group_in
    if (dilation[1] != 1 or groups != 1) and kernel[1] != 1:
        reduction += ((kernel[1], i64(dilation[1] * int(channels))),)
        inner = per_group_in
    contraction = Contraction(
        groups=groups,
        rows=simplify(i64(batch) * i64(out_height) * i64(out_width)),
        cols=per_group_out,
        a=x_flat,
        a_offset=a_offset,
        reduction=reduction,
        depth=inner,
        # Neighbouring outputs share most of their input.
        a_row_bytes=element_bytes(x) * strides[0] * strides[1] * per_group_in,
        b=b_flat,
        b_offset=lambda group, panel: (group * panels + panel) * panel_size,
        panel_width=panel_width,
        out_index=out_index,
        out_flat=lambda group, row, col: row * int(out_channels) + group * per_group_out + col,
        multiply_add=form,
        order=order,
    )
    emit = emit_tiles if fits_tiles(contraction, form, context) else emit_contraction
    return seq(more, x_declaration, b_declaration, emit(contraction, epilogue, context))
