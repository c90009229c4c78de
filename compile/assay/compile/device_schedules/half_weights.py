"""Weights of float16 and bfloat16 in the memory of a device: two in a word of 32 bits.

A word holds the numbers of two consecutive k of one row, the first in the lower half, and words lie in
panels as those of codes do (``quantized_weights.py``). They are widened where they are read, in integer
arithmetic: no device needs buffers or arithmetic of 16 bits for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from assay.compile.schedules.ir import Expr, broadcast, constant, vector_dtype

__all__ = ["HALVES", "half_words", "widened_half"]

HALVES = 2
"""Numbers in a word."""

# Of a float16 in the upper half of a word, three bits down: sign, exponent and mantissa in the places of a
# float32's. With what is added to the exponent there, it is 2^14 times as large.
_FLOAT16_BITS = 0x8FFFE000 - (1 << 32)
_EXPONENT = 126 << 23
# Twice, for 2^-14: some languages get seven digits of a constant, which do not hold that.
_SCALE = 2.0**-7
_UPPER_HALF = -(1 << 16)


def half_words(array: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Numbers of 16 bits [rows, columns] as words int32 [rows, ceil(columns / 2)]; 0 behind the last."""
    rows, columns = array.shape
    padded = np.zeros((rows, columns + columns % HALVES), "<u2")
    padded[:, :columns] = array.view(np.uint16)
    return padded.view("<i4").astype(np.int32, copy=False)


def widened_half(dtype: str, word: Expr, position: int | Expr, lanes: int = 1) -> Expr:
    """The numbers at a position, 0 or 1, of ``lanes`` words as float32, exactly.

    ``dtype``: float16 or bfloat16. Infinities and NaN of float16 become finite numbers, of 65536 and more. A
    float16 below its least normal number never is a float32 that a device may take for 0.
    """
    wide = vector_dtype("float32", lanes)
    upper = _upper(word, position, lanes)
    if dtype == "bfloat16":
        return tirx.reinterpret(wide, tirx.bitwise_and(upper, constant(_UPPER_HALF, "int32", lanes)))
    moved = tirx.shift_right(upper, constant(3, "int32", lanes))
    bits = tirx.bitwise_and(moved, constant(_FLOAT16_BITS, "int32", lanes))
    value = tirx.reinterpret(wide, bits + constant(_EXPONENT, "int32", lanes))
    # A normal number is right now. Below, with a mantissa of m / 1024, it is 1/2 + m / 2048 for m / 1024.
    value = value - (_clamped(value + value, lanes) - _clamped(value, lanes))
    scale = constant(_SCALE, "float32", lanes)
    return value * scale * scale


def _upper(word: Expr, position: int | Expr, lanes: int) -> Expr:
    """Words with the number in the upper half."""
    if isinstance(position, int):
        return word if position else tirx.shift_left(word, constant(16, "int32", lanes))
    # An amount that is computed from an index would make an index, of 64 bits, of the word too.
    amount = tirx.Select(position.equal(0), tirx.const(16, "int32"), tirx.const(0, "int32"))
    return tirx.shift_left(word, broadcast(amount, lanes))


def _clamped(value: Expr, lanes: int) -> Expr:
    """Numbers of at most 1 to either side of 0."""
    least, largest = (constant(each, "float32", lanes) for each in (-1.0, 1.0))
    return tirx.max(tirx.min(value, largest), least)
