"""Tensor expressions over weights of 4, 8 and 16 bits for devices, and how the weights lie in memory.

Words of 32 bits hold the codes of consecutive k of one row of the weight, the first in the lowest bits; the
highest bit is inverted, so that what the highest bits are as a signed number is a code less the middle one.
The rows form panels: of the rows of one, the first words lie beside each other, then the second ones, so that
threads or lanes of consecutive outputs read consecutive words. Scales and zero points lie likewise. Words of
two numbers of 16 bits (``half_weights.py``) are in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from assay.compile.device_schedules.half_weights import HALVES, half_words, widened_half
from assay.compile.schedules.block_problem import BlockCall

__all__ = [
    "BLOCK_PRODUCT",
    "BLOCK_ROWS",
    "GATED",
    "NORMED",
    "PANEL",
    "SQUARES",
    "RowNormTerms",
    "block_product",
    "block_rows",
    "codes_per_word",
    "word_weights",
]

SQUARES, NORMED = "squares", "normed"
"""The blocks of a norm: the sums of the squares of rows, and the rows."""

GATED = "gated"
"""The block of a gate behind a product."""

BLOCK_PRODUCT = "device_block_product"
"""The annotation ``assay.schedule`` of a product."""

BLOCK_ROWS = "device_block_rows"
"""The annotation ``assay.schedule`` of rows of a table."""

PANEL = 16
"""Rows of a panel."""

_HIGHEST = np.int32(-(2**31))

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class RowNormTerms:
    """RMS norm over the last axis: ``gain`` [K] is a tensor."""

    epsilon: float
    gain: Any


def codes_per_word(call: BlockCall) -> int:
    """How many codes a word holds."""
    return 32 // call.bits


def word_weights(call: BlockCall, codes: Array, *numbers: Array) -> list[Array]:
    """The operands of the weight of a ``BlockCall`` as they lie on devices.

    ``codes`` uint8 [rows, blocks, block * bits / 8] become int32 [panels, blocks * block * bits / 32, PANEL],
    and ``numbers`` (scales, then zero points where there are any) float32 [rows, blocks] become
    [panels, blocks, PANEL]. Of numbers of 16 bits, ``codes`` is these [rows, columns], which become int32
    [panels, ceil(columns / 2), PANEL]. Behind the last row are zeros.
    """
    if call.dtype:
        return [_panels(half_words(codes))]
    words = np.ascontiguousarray(codes).reshape(call.rows, -1).view("<i4").astype(np.int32) ^ _HIGHEST
    return [_panels(each) for each in (words, *numbers)]


def _panels(array: Array) -> Array:
    rows, columns = array.shape
    padded = np.zeros((-(-rows // PANEL) * PANEL, columns), array.dtype)
    padded[:rows] = array
    return np.ascontiguousarray(padded.reshape(-1, PANEL, columns).transpose(0, 2, 1))


def _number(call: BlockCall, row: Any, column: Any, weight: Sequence[Any]) -> Any:
    """The weight at a row and a column, as float32, from its operands."""
    words, *numbers = weight
    panel, place = tirx.floordiv(row, PANEL), tirx.floormod(row, PANEL)
    if call.dtype:
        word, half = words[panel, tirx.floordiv(column, HALVES), place], tirx.floormod(column, HALVES)
        return widened_half(call.dtype, word, half)
    scales, zeros = numbers[0], numbers[1] if call.has_zero_points else None
    each, block = codes_per_word(call), tirx.floordiv(column, call.block)
    word, position = words[panel, tirx.floordiv(column, each), place], tirx.floormod(column, each)
    mask, half = (tirx.const(n, "int32") for n in ((1 << call.bits) - 1, 1 << (call.bits - 1)))
    bits = tirx.bitwise_and(tirx.shift_right(word, tirx.Cast("int32", position * call.bits)), mask)
    # WGSL has no literal of the highest bit alone.
    inverted = tirx.Select(position.equal(each - 1), half, tirx.const(0, "int32"))
    code = tirx.Cast("float32", tirx.bitwise_xor(bits, inverted))
    middle = tirx.const(float(1 << (call.bits - 1)), "float32")
    return (code - (middle if zeros is None else zeros[panel, block, place])) * scales[panel, block, place]


def block_product(
    call: BlockCall,
    x: Any,
    *operands: Any,
    norm: RowNormTerms | None = None,
    gated: bool = False,
) -> Any:
    """TE: x ``[..., K]`` times the transpose of the weights, plus the bias where there is one.

    ``operands``: those of the weight, then the bias.
    ``norm``: of the rows of x before. ``gated``: the result is SiLU of its first half times the second.
    """
    weight, rest = operands[: call.weight_operands], operands[call.weight_operands :]
    epsilon = {} if norm is None else {"assay.epsilon": repr(norm.epsilon)}
    x = x if norm is None else _normed(x, norm)
    weights = te.compute(
        (call.rows, call.columns), lambda n, k: _number(call, n, k, weight), name="dequantized"
    )
    k = te.reduce_axis((0, call.columns), "k")
    product = te.compute(
        [*list(x.shape)[:-1], call.rows],
        lambda *at: te.sum(x[(*at[:-1], k.var)] * weights[at[-1], k.var], axis=k),
        name="product",
        attrs={
            "assay.schedule": BLOCK_PRODUCT,
            "assay.bits": call.bits,
            "assay.block": call.block,
            "assay.dtype": call.dtype,
            **epsilon,
        },
    )
    if rest:
        bias, sums = rest[0], product
        product = te.compute(sums.shape, lambda *at: sums[at] + bias[at[-1]], name="biased")
    return _gated(product, call.rows // 2) if gated else product


def _gated(product: Any, half: int) -> Any:
    def element(*at: Any) -> Any:
        gate, one = product[at], tirx.const(1.0, "float32")
        return gate * (one / (one + tirx.exp(-gate))) * product[(*at[:-1], at[-1] + half)]

    return te.compute([*product.shape[:-1], half], element, name=GATED)


def _normed(x: Any, norm: RowNormTerms) -> Any:
    columns = x.shape[-1]
    k = te.reduce_axis((0, columns), "k")
    squares = te.compute(
        x.shape[:-1], lambda *at: te.sum(x[(*at, k.var)] * x[(*at, k.var)], axis=k), name=SQUARES
    )

    def element(*at: Any) -> Any:
        mean = squares[at[:-1]] / tirx.Cast("float32", columns)
        return x[at] * tirx.rsqrt(mean + tirx.const(norm.epsilon, "float32")) * norm.gain[at[-1]]

    return te.compute(x.shape, element, name=NORMED)


def block_rows(call: BlockCall, indices: Any, *weight: Any) -> Any:
    """TE: the rows of a table at ``indices``; where these are outside, the nearest ones."""

    def element(*at: Any) -> Any:
        row = tirx.max(tirx.min(indices[at[:-1]], call.rows - 1), 0)
        return _number(call, row, at[-1], weight)

    attrs = {"assay.schedule": BLOCK_ROWS}
    return te.compute([*indices.shape, call.columns], element, name="rows", attrs=attrs)
