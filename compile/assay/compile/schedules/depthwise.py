"""Depthwise NHWC convolution: vectorized over channels, a few output pixels of a row at once."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.conv2d import ConvGeometry
from assay.compile.schedules.epilogue import Epilogue
from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    allocate,
    as_int,
    bind,
    broadcast,
    const_like,
    floordiv,
    floormod,
    i64,
    if_then,
    lanes_at,
    load,
    loop,
    minimum,
    parallel,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.math import with_registers
from assay.compile.schedules.nest import vector_pieces

__all__ = ["depthwise_conv2d", "emit_depthwise_conv2d"]

_PIXELS = 4
# Pixels near a border of constant width that get code of their own.
_UNROLLED = 3


def depthwise_conv2d(x: Any, filters: Any, geometry: ConvGeometry) -> Any:
    """TE: NHWC ``x``, each channel convolved with its own filter of ``filters`` ``[KH, KW, C]``.

    Fusion has to be told that elementwise operators may join it: TVM does not see that past the condition.
    """
    batch, height, width, channels = x.shape
    top, left, bottom, right = geometry.padding
    r, s = te.reduce_axis((0, geometry.kernel[0]), "r"), te.reduce_axis((0, geometry.kernel[1]), "s")

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        row = h * geometry.strides[0] + r * geometry.dilation[0] - top
        column = w * geometry.strides[1] + s * geometry.dilation[1] - left
        pixel = x[n, row, column, c]
        if any(geometry.padding):
            inside = tirx.all(row >= 0, row < height, column >= 0, column < width)
            pixel = tirx.if_then_else(inside, pixel, tirx.const(0.0, x.dtype))
        return te.sum(pixel * filters[r, s, c], axis=[r, s])

    return te.compute(
        (
            batch,
            geometry.output_extent(0, height + top + bottom),
            geometry.output_extent(1, width + left + right),
            channels,
        ),
        element,
        name="depthwise_conv2d",
        attrs={
            "assay.schedule": "depthwise_conv2d",
            "assay.strides": list(geometry.strides),
            "assay.dilation": list(geometry.dilation),
            "assay.padding": list(geometry.padding),
        },
    )


def emit_depthwise_conv2d(
    function: FusedFunction, anchor: Block, epilogue: Epilogue, context: ScheduleContext
) -> Stmt:
    """A task is one output row. Taps outside the image are left out: its pixels near the border apart."""
    x, filters = (a.source for a in loads_of(anchor.value) if not a.source.same_as(anchor.output))
    sh, sw = (int(v) for v in anchor.annotations["assay.strides"])  # type: ignore[attr-defined]
    dh, dw = (int(v) for v in anchor.annotations["assay.dilation"])  # type: ignore[attr-defined]
    top, left, bottom, _ = (int(v) for v in anchor.annotations["assay.padding"])  # type: ignore[attr-defined]
    kh, kw = (as_int(e) or 1 for e in anchor.reduction_extents)
    in_height, in_width = (i64(extent) for extent in list(x.ty.shape)[1:3])
    batch, out_height, out_width, channels = anchor.spatial_extents
    lanes = context.unit.lanes()
    # Output pixels of a row whose taps all lie inside: from `first` to `last`.
    first = minimum(-(-left // sw), out_width)
    last = simplify(
        tirx.max(
            tirx.min(floordiv(in_width + (left - 1 - (kw - 1) * dw), sw) + 1, i64(out_width)), i64(first)
        )
    )

    def pixels(n: Expr, h: Expr, w: Expr, c: Expr, count: int, width: int, inside: bool) -> Stmt:
        accumulators, declaration = allocate([count * width], "float32", "accumulators", "local")
        zero = broadcast(const_like(0.0, "float32"), width)
        statements = [declaration]
        statements += [store(accumulators, zero, lanes_at(p * width, width)) for p in range(count)]
        row, column = h * sh - top, w * sw - left

        def tap(r: int, s: int) -> Stmt:
            weight = load(filters, i64(r), i64(s), lanes_at(c, width))
            sums = []
            for p in range(count):
                at = lanes_at(p * width, width)
                pixel = load(x, n, row + r * dh, column + (p * sw + s * dw), lanes_at(c, width))
                sums.append(store(accumulators, load(accumulators, at) + pixel * weight, at))
            if inside:
                return seq(sums)
            place = simplify(column + s * dw)
            return if_then(simplify(tirx.all(place >= 0, place < in_width)), seq(sums))

        for r in range(kh):
            taps = seq(*(tap(r, s) for s in range(kw)))
            place = simplify(row + r * dh)
            valid = simplify(tirx.all(place >= 0, place < in_height)) if top or bottom else None
            statements.append(taps if valid is None else if_then(valid, taps))
        for p in range(count):
            statements.append(
                with_registers(
                    width,
                    lambda lane, registers, p=p: seq(  # type: ignore[misc]
                        epilogue.emit(
                            [n, h, w + p, c + lane],
                            ((n * i64(out_height) + h) * i64(out_width) + w + p) * i64(channels) + c + lane,
                            load(accumulators, i64(p * width) + lane),
                            registers,
                        )
                    ),
                )
            )
        return seq(statements)

    def channels_of(n: Expr, h: Expr, w: Expr, count: int, inside: bool) -> Stmt:
        return vector_pieces(
            i64(channels), lanes, lambda c, width, _: pixels(n, h, w, c, count, width, inside)
        )

    def border(n: Expr, h: Expr, start: Expr, stop: Expr) -> Stmt:
        count = as_int(simplify(stop - start))
        if count is not None and count <= _UNROLLED:
            return seq([channels_of(n, h, simplify(start + p), 1, False) for p in range(count)])
        return loop(simplify(stop - start), lambda p: channels_of(n, h, start + p, 1, False), "border")

    def row(n: Expr, h: Expr) -> Stmt:
        interior = simplify(last - first)
        full, left_over = floordiv(interior, _PIXELS), floormod(interior, _PIXELS)
        done = simplify(first + full * _PIXELS)
        parts = [border(n, h, i64(0), first)]
        if as_int(full) != 0:
            parts.append(
                loop(full, lambda t: channels_of(n, h, first + t * _PIXELS, _PIXELS, True), "pixels")
            )
        rest = as_int(left_over)
        if rest is None:
            parts.append(loop(left_over, lambda t: channels_of(n, h, done + t, 1, True), "pixel"))
        elif rest:
            parts.append(channels_of(n, h, done, rest, True))
        parts.append(border(n, h, last, i64(out_width)))
        return seq(parts)

    def task(t: Expr) -> Stmt:
        n, first_binding = bind("n", floordiv(t, out_height))
        h, second_binding = bind("h", floormod(t, out_height))
        return seq(first_binding, second_binding, row(n, h))

    work = kh * kw
    for extent in anchor.spatial_extents:
        work *= context.expected(extent)
    views = epilogue.declare_views()
    return seq(
        views,
        parallel(simplify(i64(batch) * i64(out_height)), task, "row", serial=context.is_small(work // 5)),
    )
