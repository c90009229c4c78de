"""Resize and Upsample of images from tables of positions, written for channels last so that it vectorizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax, te

from assay.compile.passes.constants import array_of
from assay.compile.schedules.ir import as_int

__all__ = ["convert_resize", "convert_upsample"]

Array = npt.NDArray[Any]

# ONNX's formulas for the position in the source of each position in the result, before any clamping.
_POSITIONS: Mapping[str, Callable[[Array, float, int, int], Array]] = {
    "half_pixel": lambda i, scale, source, result: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, source, result: (
        (i + 0.5) / scale - 0.5 if result > 1 else np.zeros_like(i)
    ),
    "half_pixel_symmetric": lambda i, scale, source, result: (
        source / 2 * (1 - result / (scale * source)) + (i + 0.5) / scale - 0.5
    ),
    "align_corners": lambda i, scale, source, result: (
        i * (source - 1) / (result - 1) if result > 1 else np.zeros_like(i)
    ),
    "asymmetric": lambda i, scale, source, result: i / scale,
}
_ROUNDINGS: Mapping[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _text(attributes: Mapping[str, Any], name: str, default: str) -> str:
    value = attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def _sizes_and_scales(
    shape: Sequence[Any], scales: Any, sizes: Any, axes: Sequence[int]
) -> list[tuple[int, float]] | None:
    """The result's size and the scale of height and width; None where they or others are not as expected."""
    known = [as_int(extent) for extent in shape]
    given = {a: i for i, a in enumerate(axes)}
    found = []
    for axis in range(4):
        source, position = known[axis], given.get(axis)
        if scales is not None and len(scales):
            scale = 1.0 if position is None else float(scales[position])
            size = None if source is None else int(np.floor(source * scale))
        elif sizes is not None:
            size = source if position is None else int(sizes[position])
            scale = 1.0 if size is None or source is None else size / source
        else:
            return None
        if axis < 2:
            if scale != 1.0 or (sizes is not None and size != source):
                return None
        elif size is None or source is None or size == 0:
            return None
        else:
            found.append((size, scale))
    return found


def _resized(
    builder: Any, data: Any, sizes: Sequence[tuple[int, float]], attributes: Mapping[str, Any]
) -> Any:
    mode, how = (
        _text(attributes, "mode", "nearest"),
        _text(attributes, "coordinate_transformation_mode", "half_pixel"),
    )
    rounding = _text(attributes, "nearest_mode", "round_prefer_floor")
    if mode not in ("nearest", "linear") or how not in _POSITIONS or rounding not in _ROUNDINGS:
        return None
    sources = [as_int(extent) or 1 for extent in list(data.ty.shape)[2:]]
    positions = [
        _POSITIONS[how](np.arange(size, dtype=np.float64), scale, source, size)
        for source, (size, scale) in zip(sources, sizes, strict=True)
    ]
    last = builder.emit(relax.op.permute_dims(data, [0, 2, 3, 1]))
    if mode == "nearest":
        places = [
            np.clip(_ROUNDINGS[rounding](p), 0, s - 1).astype(np.int32)
            for p, s in zip(positions, sources, strict=True)
        ]
        result = builder.emit_te(
            _nearest, last, *(relax.const(p) for p in places), primfunc_name_hint="resize"
        )
    else:
        tables: list[Array] = []
        for position, source in zip(positions, sources, strict=True):
            inside = np.clip(position, 0, source - 1)
            low = np.floor(inside)
            tables += [low.astype(np.int32), np.minimum(low + 1, source - 1).astype(np.int32)]
            tables.append((inside - low).astype(np.float32))
        result = builder.emit_te(
            _linear, last, *(relax.const(t) for t in tables), primfunc_name_hint="resize"
        )
    return relax.op.permute_dims(result, [0, 3, 1, 2])


def _emit(builder: Any, function: Callable[..., Any], data: Any, tables: Sequence[Array]) -> Any:
    return builder.emit_te(
        function, data, *(relax.const(table) for table in tables), primfunc_name_hint="resize"
    )


def _nearest(x: Any, rows: Any, columns: Any) -> Any:
    """TE: NHWC ``x`` at the given rows and columns."""
    return te.compute(
        (x.shape[0], rows.shape[0], columns.shape[0], x.shape[3]),
        lambda n, h, w, c: x[n, rows[h], columns[w], c],
        name="resize",
    )


def _linear(x: Any, top: Any, bottom: Any, down: Any, left: Any, right: Any, across: Any) -> Any:
    """TE: NHWC ``x`` between two rows and two columns; ``down`` and ``across`` weigh the second ones."""

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        def row(at: Any) -> Any:
            one = x[n, at, left[w], c]
            return one + (x[n, at, right[w], c] - one) * across[w]

        first = row(top[h])
        return first + (row(bottom[h]) - first) * down[h]

    shape = (x.shape[0], top.shape[0], left.shape[0], x.shape[3])
    return te.compute(shape, element, name="resize")


def _is_image(data: Any) -> bool:
    ty = data.ty
    return ty.ndim == 4 and ty.shape is not None and str(ty.dtype) == "float32"


def convert_resize(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX Resize of NCHW images, nearest or linear, to sizes that are known; None otherwise."""
    data = inputs[0]
    if not _is_image(data) or int(attributes.get("antialias", 0)):
        return None
    if _text(attributes, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    if opset < 11:
        scales = None if inputs[1] is None else array_of(inputs[1])
        old = {**attributes, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        sizes = _sizes_and_scales(list(data.ty.shape), scales, None, range(4))
        return None if sizes is None else _resized(builder, data, sizes, old)
    if any(inputs[i] is not None and array_of(inputs[i]) is None for i in (2, 3)):
        return None
    scales, wanted = (None if inputs[i] is None else array_of(inputs[i]) for i in (2, 3))
    axes = [int(axis) % 4 for axis in attributes.get("axes", range(4))]
    sizes = _sizes_and_scales(list(data.ty.shape), scales, wanted, axes)
    return None if sizes is None else _resized(builder, data, sizes, attributes)


def convert_upsample(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX Upsample, which is Resize of opset 10; None for what is no image or has no known size."""
    scales = attributes.get("scales")
    if scales is None and inputs[1] is not None:
        scales = array_of(inputs[1])
    if scales is None or not _is_image(inputs[0]):
        return None
    old = {**attributes, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    sizes = _sizes_and_scales(list(inputs[0].ty.shape), scales, None, range(4))
    return None if sizes is None else _resized(builder, inputs[0], sizes, old)
