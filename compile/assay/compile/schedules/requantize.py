"""Tensor expressions between 8-bit integers and float32: quantize, dequantize, rescale a 32-bit sum.

A real number is ``scale * (q - zero)``. Rounding is to the nearest even integer, as ONNX asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import te, tirx

__all__ = ["add_dequantized", "dequantize", "less_zero", "quantize", "rescale", "round_to_even", "to_integer"]

# 1.5 * 2^23: adding it to a float32 of less than 2^22 rounds to the nearest even integer, which is then in
# the low bits.
_MAGIC = 12582912.0
_MAGIC_BITS = 0x4B400000


def _f32(value: float) -> Any:
    return tirx.const(value, "float32")


def round_to_even(value: Any) -> Any:
    """A float32 of magnitude below 2^22 as the nearest int32, ties to even."""
    return tirx.reinterpret("int32", value + _f32(_MAGIC)) - tirx.const(_MAGIC_BITS, "int32")


def to_integer(
    value: Any,
    zero: int,
    dtype: str,
    low: float = float("-inf"),
    high: float = float("inf"),
    *,
    fits: bool = False,
) -> Any:
    """round(value) + zero within the limits of ``dtype`` and [low, high] before it, as ``dtype``.

    ``fits``: whether |value| is below 2^30 whatever the input is, and the target's vectors are those that the
    kernel is scheduled for. Then it is bounded as an integer, which for the limits of ``dtype`` is a part of
    the instructions that narrow, and what reads the result in the same kernel need not widen it again.
    """
    smallest, largest = (0, 255) if dtype == "uint8" else (-128, 127)
    least, most = max(smallest - zero, low), min(largest - zero, high)
    if not fits:
        bounded = tirx.min(tirx.max(value, _f32(least)), _f32(most))
        return tirx.Cast(dtype, round_to_even(bounded) + tirx.const(zero, "int32"))
    # Rounding keeps the order: the bounds are rounded instead of what they bound. LLVM cannot split a vector
    # of this intrinsic that is longer than the target's.
    whole = tirx.call_llvm_pure_intrin("int32", "llvm.lrint", value)
    bounds = [tirx.const(round(float(np.float32(bound))) + zero, "int32") for bound in (least, most)]
    if zero:
        whole = whole + tirx.const(zero, "int32")
    return tirx.Cast(dtype, tirx.min(tirx.max(whole, bounds[0]), bounds[1]))


def _along(values: Any, index: Sequence[Any], axis: int | None) -> Any:
    """A scalar, or the element of a vector along one axis."""
    if not isinstance(values, te.Tensor):
        return _f32(values)
    return values[index[axis if axis is not None else -1]]


def dequantize(q: Any, scale: float, zero: int) -> Any:
    """TE: float32 of ``q``'s shape, scale * (q - zero)."""
    return te.compute(q.shape, lambda *i: _real(q[i], scale, zero), name="dequantize")


def _real(element: Any, scale: float, zero: int) -> Any:
    wide = tirx.Cast("int32", element)
    return tirx.Cast("float32", wide - tirx.const(zero, "int32") if zero else wide) * _f32(scale)


def quantize(x: Any, scale: float, zero: int, dtype: str) -> Any:
    """TE: ``dtype`` of ``x``'s shape, round(x / scale) + zero."""
    return te.compute(x.shape, lambda *i: to_integer(x[i] / _f32(scale), zero, dtype), name="quantize")


def add_dequantized(x: Any, q: Any, scale: float, zero: int) -> Any:
    """TE: float32 ``x`` plus the real numbers of ``q``, of the same shape."""
    return te.compute(x.shape, lambda *i: x[i] + _real(q[i], scale, zero), name="add_dequantized")


def add_integers(
    a: Any, b: Any, *, scales: tuple[float, float], zeros: tuple[int, int], zero: int | None, low: float,
    high: float, fits: bool = False,
) -> Any:  # fmt: skip
    """TE: the sum of two tensors of integers, each dequantized, bounded, and quantized as by ``rescale``."""
    constant = -sum(scale * point for scale, point in zip(scales, zeros, strict=True))

    def element(*i: Any) -> Any:
        parts = [
            tirx.Cast("float32", tirx.Cast("int32", q[i])) * _f32(scale)
            for q, scale in zip((a, b), scales, strict=True)
        ]
        return _bounded(parts[0] + (parts[1] + _f32(constant)), zero, low, high, fits=fits)

    return te.compute(a.shape, element, name="add_integers")


def _bounded(value: Any, zero: int | None, low: float, high: float, *, fits: bool) -> Any:
    """``value`` between two bounds; rounded to uint8 about ``zero`` where that is given."""
    if zero is not None:
        return to_integer(value, zero, "uint8", low, high, fits=fits)
    if low != float("-inf"):
        value = tirx.max(value, _f32(low))
    return tirx.min(value, _f32(high)) if high != float("inf") else value


def less_zero(total: Any, zero: Any, columns: Any) -> Any:
    """TE: int32 sums less ``zero`` (a scalar) times the sum of each column's weights."""
    return te.compute(
        total.shape, lambda *i: total[i] - tirx.Cast("int32", zero()) * columns[i[-1]], name="less_zero"
    )


def rescale(total: Any, *vectors: Any, zero: int | None, low: float, high: float, fits: bool = False) -> Any:
    """TE: (total + bias) * factor, bias and factor along the last axis, between ``low`` and ``high``.

    ``vectors``: int32 bias (may be left out), then float32 factor. float32 where ``zero`` is None, else
    rounded to uint8 about ``zero``; ``fits``: as for ``to_integer``.
    """
    *bias, factor = vectors

    def element(*i: Any) -> Any:
        whole = total[i] + bias[0][i[-1]] if bias else total[i]
        return _bounded(tirx.Cast("float32", whole) * factor[i[-1]], zero, low, high, fits=fits)

    return te.compute(total.shape, element, name="rescale")
