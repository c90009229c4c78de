"""What the pass over quantized graphs knows of a value: integers, weights, or sums under way."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.compile.schedules.multiply_add import PairsOf16

__all__ = [
    "Addition",
    "Integers",
    "Sums",
    "Weights",
    "shifted",
    "to_signed",
    "to_unsigned",
    "typed",
    "with_bias",
]

# A bias further than this from a multiple of its scale is no integer in disguise.
_INTEGER_BIAS = 1e-2


@dataclass(frozen=True, kw_only=True)
class Integers:
    """``scale * (q - zero)``, with one scale for the whole tensor; ``q`` is uint8.

    ``zero`` is a number, or a scalar uint8 that is known at run time only.
    """

    q: Any
    scale: float
    zero: Any

    @property
    def known_zero(self) -> int:
        """The zero point that kernels take off: none where it is known at run time only."""
        return self.zero if isinstance(self.zero, int) else 0


@dataclass(frozen=True, kw_only=True)
class Addition:
    """The sum of two dequantized tensors of one shape, at least ``low`` and at most ``high``."""

    a: Integers
    b: Integers
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Weights:
    """``scale * (values - zero)``; scale and zero are scalars, or vectors along ``axis``."""

    values: npt.NDArray[Any]
    scale: npt.NDArray[Any]
    zero: npt.NDArray[Any]
    axis: int

    def real(self) -> npt.NDArray[np.float32]:
        """The numbers that the weights stand for."""
        shape = [-1 if a == self.axis else 1 for a in range(self.values.ndim)] if self.scale.ndim else ()
        shifted = self.values.astype(np.int32) - self.zero.astype(np.int32).reshape(shape)
        result: npt.NDArray[np.float32] = shifted.astype(np.float32) * self.scale.reshape(shape)
        return result

    def transposed(self, axes: tuple[int, ...]) -> Weights:
        """The weights with their axes in another order."""
        axis = axes.index(self.axis) if self.scale.ndim else 0
        return replace(self, values=np.ascontiguousarray(self.values.transpose(axes)), axis=axis)

    def along(self, axis: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """Scale and zero for each element along ``axis``; None where they vary along another one."""
        if self.scale.ndim and self.axis != axis:
            return None
        count = self.values.shape[axis]
        return np.broadcast_to(self.scale, (count,)), np.broadcast_to(self.zero, (count,))


@dataclass(frozen=True, kw_only=True)
class Sums:
    """``(total + bias) * factor`` between two bounds: a contraction of integers before it is rounded."""

    total: Any
    bias: npt.NDArray[np.int32]
    factor: npt.NDArray[np.float32]
    low: float = -math.inf
    high: float = math.inf


def with_bias(sums: Sums, bias: npt.NDArray[Any] | None) -> Sums | None:
    """The sums plus a constant along the last axis, in units of their factor; None where it is no integer."""
    if bias is None or math.isfinite(sums.low) or math.isfinite(sums.high):
        return None
    if bias.size not in (1, len(sums.factor)) or (bias.ndim and bias.shape[-1] != bias.size):
        return None
    units = bias.reshape(-1).astype(np.float64) / sums.factor
    whole = np.rint(units)
    if (
        not np.all(np.abs(units - whole) <= _INTEGER_BIAS + 1e-6 * np.abs(whole))
        or np.abs(whole).max() >= 2**30
    ):
        return None
    return replace(sums, bias=sums.bias + whole.astype(np.int32))


def to_signed(q: Any) -> Any:
    """TE: uint8 as the int8 that is 128 less."""
    return shifted(q, "int8")


def to_unsigned(q: Any) -> Any:
    """TE: int8 as the uint8 that is 128 more."""
    return shifted(q, "uint8")


def shifted(q: Any, dtype: str) -> Any:
    """TE: the same numbers less 128 as int8, or plus 128 as uint8: the top bit is the other."""
    from tvm import te, tirx

    return te.compute(
        q.shape,
        lambda *i: tirx.reinterpret(dtype, tirx.reinterpret("uint8", q[i]) ^ tirx.const(128, "uint8")),
        name="shift",
    )


def typed(weights: npt.NDArray[Any], zero: npt.NDArray[Any], form: Any) -> npt.NDArray[Any]:
    """Weights ``[N, ...]`` as the form multiplies them: in 16 bits, less their zero points."""
    if not isinstance(form, PairsOf16):
        return weights
    shape = [-1] + [1] * (weights.ndim - 1)
    return weights.astype(np.int16) - zero.astype(np.int16).reshape(shape)
