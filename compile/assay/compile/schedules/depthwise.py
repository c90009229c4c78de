"""Depthwise NHWC convolution: vectorized over channels, a few output pixels of a row at once."""

from __future__ import annotations

from typing import Any

from tvm import te

from assay.compile.schedules.blocks import Block, FusedFunction, loads_of
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.conv2d import ConvGeometry, pad_spatial
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
    lanes_at,
    load,
    loop,
    parallel,
    seq,
    simplify,
    store,
)
from assay.compile.schedules.math import with_registers

__all__ = ["depthwise_conv2d", "emit_depthwise_conv2d"]

_PIXELS = 4


def depthwise_conv2d(x: Any, filters: Any, geometry: ConvGeometry) -> Any:
    """TE: NHWC ``x``, each channel convolved with its own filter of ``filters`` ``[KH, KW, C]``."""
    padded = pad_spatial(x, geometry.padding)
    batch, height, width, channels = padded.shape
    r, s = te.reduce_axis((0, geometry.kernel[0]), "r"), te.reduce_axis((0, geometry.kernel[1]), "s")
    return te.compute(
        (batch, geometry.output_extent(0, height), geometry.output_extent(1, width), channels),
        lambda n, h, w, c: te.sum(
            padded[
                n,
                h * geometry.strides[0] + r * geometry.dilation[0],
                w * geometry.strides[1] + s * geometry.dilation[1],
                c,
            ]
            * filters[r, s, c],
            axis=[r, s],
        ),
        name="depthwise_conv2d",
        attrs={
            "assay.schedule": "depthwise_conv2d",
            "assay.strides": list(geometry.strides),
            "assay.dilation": list(geometry.dilation),
        },
    )


def emit_depthwise_conv2d(
    function: FusedFunction, anchor: Block, epilogue: Epilogue, context: ScheduleContext
) -> Stmt:
    """A task is one output row; its filter taps stay in registers while the row's pixels pass."""
    x, filters = (a.source for a in loads_of(anchor.value) if not a.source.same_as(anchor.output))
    sh, sw = (int(v) for v in anchor.annotations["assay.strides"])  # type: ignore[attr-defined]
    dh, dw = (int(v) for v in anchor.annotations["assay.dilation"])  # type: ignore[attr-defined]
    kh, kw = (as_int(e) or 1 for e in anchor.reduction_extents)
    batch, out_height, out_width, channels = anchor.spatial_extents
    lanes = context.unit.lanes()

    def pixels(n: Expr, h: Expr, w: Expr, c: Expr, count: int, width: int) -> Stmt:
        accumulators, declaration = allocate([count * width], "float32", "accumulators", "local")
        zero = broadcast(const_like(0.0, "float32"), width)
        statements = [declaration]
        statements += [store(accumulators, zero, lanes_at(p * width, width)) for p in range(count)]
        for r in range(kh):
            for s in range(kw):
                weight = load(filters, i64(r), i64(s), lanes_at(c, width))
                for p in range(count):
                    at = lanes_at(p * width, width)
                    pixel = load(x, n, h * sh + r * dh, (w + p) * sw + s * dw, lanes_at(c, width))
                    statements.append(store(accumulators, load(accumulators, at) + pixel * weight, at))
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

    def row(n: Expr, h: Expr, c: Expr, width: int) -> Stmt:
        full, left = floordiv(out_width, _PIXELS), floormod(out_width, _PIXELS)
        done = simplify(full * _PIXELS)
        parts = []
        if as_int(full) != 0:
            parts.append(loop(full, lambda t: pixels(n, h, t * _PIXELS, c, _PIXELS, width), "pixels"))
        rest = as_int(left)
        if rest is None:
            parts.append(loop(left, lambda t: pixels(n, h, done + t, c, 1, width), "pixel"))
        elif rest:
            parts.append(pixels(n, h, done, c, rest, width))
        return seq(parts)

    def task(t: Expr) -> Stmt:
        n, first = bind("n", floordiv(t, out_height))
        h, second = bind("h", floormod(t, out_height))
        blocks, left = floordiv(channels, lanes), floormod(channels, lanes)
        parts = (
            [loop(blocks, lambda v: row(n, h, v * lanes, lanes), "channels")] if as_int(blocks) != 0 else []
        )
        if as_int(left) != 0:
            done = simplify(blocks * lanes)
            parts.append(loop(left, lambda e: row(n, h, done + e, 1), "channel"))
        return seq(first, second, parts)

    work = kh * kw
    for extent in anchor.spatial_extents:
        work *= context.expected(extent)
    views = epilogue.declare_views()
    return seq(
        views,
        parallel(simplify(i64(batch) * i64(out_height)), task, "row", serial=context.is_small(work // 5)),
    )
