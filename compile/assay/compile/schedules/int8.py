"""Contractions of 8-bit integers with 32-bit sums: tensor expressions over panels, and how these are packed.

The loops are those of the float32 contractions; a form of the multiply-add (``multiply_add.py``) says how
many neighbouring K one step takes, and so how the panels lie: ``[P, steps, NR, K of a step]``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from assay.compile.schedules.conv2d import ConvGeometry
from assay.compile.schedules.multiply_add import MultiplyAdd, form_name

__all__ = [
    "Sizes",
    "integer_conv2d",
    "integer_matmul",
    "ordered_conv2d",
    "ordered_matmul",
    "pack_integer_filters",
    "pack_integer_panels",
    "prepare",
    "step_offsets",
    "step_table",
]

Sizes: TypeAlias = tuple[tuple[int, int], ...]
"""How many steps are taken together, and how often, in order."""


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def pack_integer_panels(
    weights: npt.NDArray[Any], width: int, depth: int, run: int | None = None
) -> npt.NDArray[Any]:
    """Pack B ``[K, N]`` as panels ``[ceil(N / NR), steps, NR, depth]``.

    K is walked in runs of ``run`` (by default all of it), each of which starts a step of its own. Zeros pad
    the last step of a run and the last panel.
    """
    total, cols = weights.shape
    run = run or total
    steps, panels = -(-run // depth), -(-cols // width)
    padded = np.zeros((total // run, steps * depth, panels * width), weights.dtype)
    padded[:, :run, :cols] = weights.reshape(total // run, run, cols)
    blocks = padded.reshape(total // run * steps, depth, panels, width)
    return np.ascontiguousarray(blocks.transpose(2, 0, 3, 1))


def _merged(geometry: ConvGeometry) -> bool:
    """Whether the taps of one filter row are neighbours in memory, channels and all."""
    return geometry.kernel[1] == 1 or (geometry.dilation[1] == 1 and geometry.groups == 1)


def pack_integer_filters(
    filters: npt.NDArray[Any], geometry: ConvGeometry, width: int, depth: int
) -> npt.NDArray[Any]:
    """Pack OHWI filters ``[O, KH, KW, I / groups]`` as ``[groups * P, steps, NR, depth]``."""
    groups = geometry.groups
    per_group = filters.shape[0] // groups
    run = filters.shape[3] * (geometry.kernel[1] if _merged(geometry) else 1)
    packed = [
        pack_integer_panels(
            filters[g * per_group : (g + 1) * per_group].reshape(per_group, -1).T, width, depth, run
        )
        for g in range(groups)
    ]
    return np.ascontiguousarray(np.concatenate(packed))


def prepare(x: Any, padding: tuple[int, int, int, int], zero: int, *, widen: bool) -> Any:
    """TE: NHWC ``x`` with height and width padded by ``zero``; as int16 less ``zero`` where ``widen``."""
    top, left, bottom, right = padding
    if not any(padding) and not widen:
        return x
    batch, height, width, channels = x.shape

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        value = x[n, h - top, w - left, c]
        if widen:
            value = tirx.Cast("int16", value) - tirx.const(zero, "int16")
        if not any(padding):
            return value
        inside = tirx.all(h >= top, h < height + top, w >= left, w < width + left)
        outside = tirx.const(0, "int16") if widen else tirx.const(zero, str(x.dtype))
        return tirx.if_then_else(inside, value, outside)

    return te.compute((batch, height + top + bottom, width + left + right, channels), element, name="pad")


def _widened(x: Any, zero: int) -> Any:
    return te.compute(x.shape, lambda *i: tirx.Cast("int16", x[i]) - tirx.const(zero, "int16"), name="widen")


def _product(a: Any, b: Any) -> Any:
    return tirx.Cast("int32", a) * tirx.Cast("int32", b)


def _annotation(sizes: Sizes) -> list[int]:
    """Sizes and counts in one list, which an attribute can hold."""
    return [number for pair in sizes for number in pair]


def step_table(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers from 0 on in the smallest type that holds them: a table is a part of the weights' bytes."""
    return numbers.astype(np.min_scalar_type(numbers.max(initial=0)))


def ordered_matmul(a: Any, b: Any, steps: Any, *, cols: int, form: MultiplyAdd, sizes: Sizes) -> Any:
    """TE: int32 ``[..., M, N]``, A times panels whose steps have the numbers ``steps`` [P, steps]."""
    width, depth = int(b.shape[2]), int(b.shape[3])
    step, part = te.reduce_axis((0, b.shape[1]), "step"), te.reduce_axis((0, depth), "part")

    def element(*i: Any) -> Any:
        panel = tirx.floordiv(i[-1], width)
        k = tirx.Cast("int64", steps[panel, step]) * depth + part
        return te.sum(
            _product(a[(*i[:-1], k)], b[panel, step, tirx.floormod(i[-1], width), part]), axis=[step, part]
        )

    return te.compute(
        (*a.shape[:-1], cols),
        element,
        name="ordered_matmul",
        attrs={
            "assay.schedule": "packed_matmul",
            "assay.form": form_name(form),
            "assay.sizes": _annotation(sizes),
            "assay.unit": depth,
        },
    )


def integer_matmul(a: Any, b: Any, *, cols: int, form: MultiplyAdd, zero: int) -> Any:
    """TE: int32 ``[..., M, N]``, A ``[..., M, K]`` times packed B.

    Where the form takes 16 bits, ``zero`` is taken off A first; else the caller corrects the sums for it.
    """
    if str(b.dtype) == "int16":
        a = _widened(a, zero)
    width, depth = int(b.shape[2]), int(b.shape[3])
    k = te.reduce_axis((0, a.shape[-1]), "k")
    return te.compute(
        (*a.shape[:-1], cols),
        lambda *i: te.sum(
            _product(
                a[(*i[:-1], k)],
                b[
                    tirx.floordiv(i[-1], width),
                    tirx.floordiv(k, depth),
                    tirx.floormod(i[-1], width),
                    tirx.floormod(k, depth),
                ],
            ),
            axis=k,
        ),
        name="integer_matmul",
        attrs={"assay.schedule": "packed_matmul", "assay.form": form_name(form)},
    )


def integer_conv2d(
    x: Any, b: Any, *, geometry: ConvGeometry, channels: int, form: MultiplyAdd, zero: int
) -> Any:
    """TE: int32 NHWC, ``x`` convolved with packed filters and padded with ``zero``; see integer_matmul."""
    padded = prepare(x, geometry.padding, zero, widen=str(b.dtype) == "int16")
    batch, height, width, in_channels = padded.shape
    kh, kw = geometry.kernel
    per_group_in, per_group_out = int(in_channels) // geometry.groups, channels // geometry.groups
    panel, depth = int(b.shape[2]), int(b.shape[3])
    panels, merged = -(-per_group_out // panel), _merged(geometry)
    steps = -(-per_group_in * (kw if merged else 1) // depth)
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
        run, k = (r, s * per_group_in + i) if merged else (r * kw + s, i)
        weight = b[
            group * panels + tirx.floordiv(inside, panel),
            run * steps + tirx.floordiv(k, depth),
            tirx.floormod(inside, panel),
            tirx.floormod(k, depth),
        ]
        return te.sum(_product(pixel, weight), axis=[r, s, i])

    return te.compute(
        (batch, geometry.output_extent(0, height), geometry.output_extent(1, width), channels),
        element,
        name="integer_conv2d",
        attrs={
            "assay.schedule": "conv2d",
            "assay.form": form_name(form),
            "assay.kernel": list(geometry.kernel),
            "assay.strides": list(geometry.strides),
            "assay.dilation": list(geometry.dilation),
            "assay.groups": geometry.groups,
        },
    )


def step_slack(geometry: ConvGeometry, channels: int, depth: int) -> int | None:
    """Pixels that the steps of a filter's rows read behind an image's rows, where their weights are 0.

    None where steps would read behind what is padded anyway.
    """
    run = channels * (geometry.kernel[1] if _merged(geometry) else 1)
    if geometry.groups != 1 or (run % depth and not (_merged(geometry) and any(geometry.padding))):
        return None
    return -(-(-run % depth) // channels)


def step_offsets(
    geometry: ConvGeometry, width: int, channels: int, depth: int
) -> npt.NDArray[np.int64] | None:
    """Where each step of a packed filter starts in an NHWC image ``width`` pixels wide before it is padded.

    None where steps cannot be walked in any order.
    """
    slack = step_slack(geometry, channels, depth)
    if slack is None:
        return None
    padded = (width + geometry.padding[1] + geometry.padding[3] + slack) * channels
    taps = geometry.kernel[1]
    run = channels * (taps if _merged(geometry) else 1)
    rows = np.arange(geometry.kernel[0]) * (geometry.dilation[0] * padded)
    starts = (
        rows if _merged(geometry) else rows[:, None] + np.arange(taps) * (geometry.dilation[1] * channels)
    )
    return (starts.reshape(-1, 1) + np.arange(0, run, depth)).reshape(-1)


def ordered_conv2d(
    x: Any, b: Any, offsets: Any, *, geometry: ConvGeometry, channels: int, form: MultiplyAdd, zero: int,
    sizes: Sizes,
) -> Any:  # fmt: skip
    """TE: ``integer_conv2d`` with the steps at ``offsets`` [P, steps] from a pixel; one group, uint8."""
    panel, depth = int(b.shape[2]), int(b.shape[3])
    slack = step_slack(geometry, int(x.shape[3]), depth)
    assert slack is not None, "steps of this convolution have no order"
    top, left, bottom, right = geometry.padding
    padded = prepare(x, (top, left, bottom, right + slack), zero, widen=False)
    batch, height, width, in_channels = padded.shape
    step, part = te.reduce_axis((0, b.shape[1]), "step"), te.reduce_axis((0, depth), "part")

    def element(n: Any, h: Any, w: Any, o: Any) -> Any:
        column = tirx.floordiv(o, panel)
        at = tirx.Cast("int64", offsets[column, step]) + part
        row, rest = tirx.floordiv(at, width * in_channels), tirx.floormod(at, width * in_channels)
        pixel = padded[
            n,
            h * geometry.strides[0] + row,
            w * geometry.strides[1] + tirx.floordiv(rest, in_channels),
            tirx.floormod(rest, in_channels),
        ]
        return te.sum(_product(pixel, b[column, step, tirx.floormod(o, panel), part]), axis=[step, part])

    return te.compute(
        (batch, geometry.output_extent(0, height), geometry.output_extent(1, width - slack), channels),
        element,
        name="ordered_conv2d",
        attrs={
            "assay.schedule": "conv2d",
            "assay.form": form_name(form),
            "assay.sizes": _annotation(sizes),
            "assay.unit": 1,
            "assay.kernel": list(geometry.kernel),
            "assay.strides": list(geometry.strides),
            "assay.dilation": list(geometry.dilation),
            "assay.groups": 1,
        },
    )
