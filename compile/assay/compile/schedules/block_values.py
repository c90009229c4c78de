"""Tensor expressions over block-quantized weights as ``block_format.py`` lays them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from assay.compile.schedules.block_format import BlockFormat, Offset

__all__ = ["block_gather", "block_matmul"]

_Bytes = Callable[[Any], Any]


def _bits(byte: _Bytes, at: Any, count: int) -> Any:
    """``count`` bytes from ``at`` as the bits of one number."""
    kind = f"uint{8 * count}"
    total = tirx.Cast(kind, byte(at))
    for position in range(1, count):
        total = total | (tirx.Cast(kind, byte(at + position)) << tirx.const(8 * position, kind))
    return total


def _number(byte: _Bytes, at: Any, dtype: str) -> Any:
    bits = _bits(byte, at, int(dtype[-2:]) // 8)
    return tirx.Cast("float32", tirx.reinterpret(dtype, bits))


def _code(form: BlockFormat, byte: _Bytes, col: Any, k: Any) -> Any:
    """The code of column ``col`` of a panel at ``k`` of a block, as float32."""
    vector, lane, part = tirx.floordiv(col, form.lanes), tirx.floormod(col, form.lanes), tirx.floormod(k, 4)
    quad = tirx.floordiv(k, 8 if form.bits == 4 else 4)
    value = byte(((quad * form.vectors + vector) * form.lanes + lane) * 4 + part)
    if form.bits == 4:
        shift = tirx.Cast("uint8", tirx.floormod(tirx.floordiv(k, 4), 2) * 4)
        value = (value >> shift) & tirx.const(15, "uint8")
    return tirx.Cast("float32", value)


def _offset(form: BlockFormat, byte: _Bytes, col: Any) -> Any:
    """The zero point or the minimum of column ``col`` of a panel, as float32."""
    at = form.offsets_at
    match form.offset_type:
        case "uint8":
            return tirx.Cast("float32", byte(at + col))
        case "uint4":
            half = form.width // 2
            shift = tirx.Cast("uint8", tirx.floordiv(col, half) * 4)
            pair = byte(at + tirx.floormod(col, half))
            return tirx.Cast("float32", (pair >> shift) & tirx.const(15, "uint8"))
        case kind:
            return _number(byte, at + col * (int(kind[-2:]) // 8), kind)


def _weight(form: BlockFormat, packed: Any, n: Any, k: Any) -> Any:
    """The real number of row ``n`` and K ``k`` of a matrix ``[N, K]``."""
    panel, col = tirx.floordiv(n, form.width), tirx.floormod(n, form.width)
    block, rest = tirx.floordiv(k, form.block), tirx.floormod(k, form.block)

    def byte(at: Any) -> Any:
        return packed[panel, block, at]

    scale, code = (
        _number(byte, form.code_bytes + col * form.scale_bytes, form.scale),
        _code(form, byte, col, rest),
    )
    match form.offset:
        case Offset.CONSTANT:
            return scale * (code - tirx.const(float(form.zero_point), "float32"))
        case Offset.ZERO_POINT:
            return scale * (code - _offset(form, byte, col))
    return scale * code + _offset(form, byte, col)


def block_matmul(x: Any, packed: Any, *, form: BlockFormat) -> Any:
    """TE: float32 ``[..., N]`` of quantized activations, int8 ``[..., row_bytes]``, times packed weights."""
    activations = form.activations
    k = te.reduce_axis((0, activations.codes), "k")

    def element(*i: Any) -> Any:
        def byte(at: Any) -> Any:
            return tirx.reinterpret("uint8", x[(*i[:-1], at)])

        scale = _number(byte, activations.codes + tirx.floordiv(k, form.block) * 4, "float32")
        value = tirx.Cast("float32", x[(*i[:-1], k)]) * scale
        return te.sum(value * _weight(form, packed, i[-1], k), axis=k)

    return te.compute(
        (*x.shape[:-1], form.cols),
        element,
        name="block_matmul",
        attrs={
            "assay.schedule": "block_matmul",
            "assay.format": form.to_text(),
            "assay.operations": 2 * form.depth,
        },
    )


def block_gather(packed: Any, indices: Any, *, form: BlockFormat) -> Any:
    """TE: float32 ``[..., K]``, the rows ``indices`` (within [0, N)) of packed weights ``[N, K]``."""
    return te.compute(
        (*indices.shape, form.depth),
        lambda *i: _weight(form, packed, indices[i[:-1]], i[-1]),
        name="block_gather",
    )
