"""Matrices in groups: each run of ``group`` weights of a row shares one scale, and perhaps a zero point.

The value of a code is ``scale * (code - zero_point)``, as ONNX Runtime's MatMulNBits has it. Scales are
float32 numbers that float16 holds, so that 16 bits of each are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from assay.errors import ModelError
from assay.models.decoders.weights import BlockQuantized

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["GROUP_SIZES", "group_parameters", "groups_of", "quantize_groups", "round_to_codes"]

GROUP_SIZES = (16, 32, 64, 128)

# Shares of the full range that the scale search tries: a clipped extreme may cost less than a coarse grid.
_SHARES = np.linspace(1.0, 0.7, 13, dtype=np.float32)


def groups_of(columns: int, group: int) -> int:
    """How many groups a row of ``columns`` weights has; the last may be shorter."""
    return -(-columns // group)


def quantize_groups(
    values: npt.NDArray[np.float32],
    *,
    bits: int,
    group: int,
    symmetric: bool,
    search: bool = False,
    importance: npt.NDArray[np.float32] | None = None,
) -> BlockQuantized:
    """``values`` [rows, columns] rounded to the nearest code, columns padded with zeros to whole groups.

    ``search`` looks for the scale of each group that gives the least squared error, weighted by
    ``importance`` [columns], rather than one that holds the extremes. Raises ModelError for weights beyond
    what a float16 scale reaches.
    """
    rows, columns = values.shape
    count = groups_of(columns, group)
    padding = count * group - columns
    blocks = np.pad(values, ((0, 0), (0, padding))).reshape(rows, count, group)
    weight = None
    if importance is not None:
        weight = np.pad(importance, (0, padding)).reshape(count, group)
    scales, zeros = group_parameters(blocks, bits=bits, symmetric=symmetric, search=search, importance=weight)
    codes = round_to_codes(blocks, scales[..., None], None if zeros is None else zeros[..., None], bits)
    return BlockQuantized(
        bits=bits,
        block_size=group,
        codes=codes.reshape(rows, count * group),
        scales=scales,
        zero_points=zeros,
    )


def group_parameters(
    blocks: npt.NDArray[np.float32],
    *,
    bits: int,
    symmetric: bool,
    search: bool = False,
    importance: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Scales and zero points of ``blocks`` [..., group], without the last axis; no zero points if symmetric.

    Zero points are integers. A symmetric scale puts the group's extreme on the lowest code, so that it may be
    negative, as in llama.cpp's Q4_0. ``importance`` broadcasts against ``blocks``. Raises ModelError.
    """
    if not search:
        return _parameters(blocks, np.float32(1), bits, symmetric)
    best_scales, best_zeros = _parameters(blocks, np.float32(1), bits, symmetric)
    best = _squared_error(blocks, best_scales, best_zeros, bits, importance)
    for share in _SHARES[1:]:
        scales, zeros = _parameters(blocks, share, bits, symmetric)
        error = _squared_error(blocks, scales, zeros, bits, importance)
        better = error < best
        best = np.where(better, error, best)
        best_scales = np.where(better, scales, best_scales)
        if zeros is not None and best_zeros is not None:
            best_zeros = np.where(better, zeros, best_zeros)
    return best_scales, best_zeros


def _parameters(
    blocks: npt.NDArray[np.float32], share: np.float32, bits: int, symmetric: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    highest = 2**bits - 1
    low, high = blocks.min(axis=-1), blocks.max(axis=-1)
    if symmetric:
        extreme = np.where(-low > high, low, high)
        return _storable(share * extreme / np.float32(-(2 ** (bits - 1)))), None
    # Zero is a code, so that padding and zeros come back exactly.
    low, high = share * np.minimum(low, 0), share * np.maximum(high, 0)
    scales = _storable((high - low) / np.float32(highest))
    with np.errstate(divide="ignore", invalid="ignore"):
        zeros = np.where(scales == 0, 0, np.rint(-low / scales))
    return scales, np.clip(zeros, 0, highest).astype(np.float32)


def _storable(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The nearest numbers of float16, as float32."""
    with np.errstate(over="ignore"):
        stored: npt.NDArray[np.float32] = scales.astype(np.float16).astype(np.float32)
    if not np.all(np.isfinite(stored)):
        raise ModelError("There are weights too large for scales in float16.")
    return stored


def round_to_codes(
    values: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    zeros: npt.NDArray[np.float32] | None,
    bits: int,
) -> npt.NDArray[np.uint8]:
    """Codes of ``values``; ``scales`` and ``zeros`` broadcast. Where the scale is 0, that of zero."""
    middle = np.float32(2 ** (bits - 1)) if zeros is None else zeros
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(scales == 0, np.float32(0), values / scales)
    return np.clip(np.rint(steps) + middle, 0, 2**bits - 1).astype(np.uint8)


def _squared_error(
    blocks: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    zeros: npt.NDArray[np.float32] | None,
    bits: int,
    importance: npt.NDArray[np.float32] | None,
) -> npt.NDArray[np.float32]:
    column = None if zeros is None else zeros[..., None]
    codes = round_to_codes(blocks, scales[..., None], column, bits).astype(np.float32)
    middle = np.float32(2 ** (bits - 1)) if column is None else column
    squares = np.square(scales[..., None] * (codes - middle) - blocks)
    if importance is not None:
        squares = squares * importance
    total: npt.NDArray[np.float32] = squares.sum(axis=-1)
    return total
