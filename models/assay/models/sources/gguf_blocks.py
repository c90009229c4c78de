"""GGUF's blocks of codes behind a scale (and a minimum), taken apart without loss.

The layouts are those of ``block_q4_0`` to ``block_q6_K`` in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h. In a block of 32 codes, the low
halves of bytes are the first 16 and the high halves the others. A super-block of 256 has 8 blocks of 32, or
16 of 16, whose scales and minimums are small integers times the super-block's float16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from assay.models.decoders.weights import BlockQuantized

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]

__all__ = ["BLOCKS", "CODES", "unpack"]

_BLOCK = 32
_ELEMENTS = {"Q4_K": 256, "Q5_K": 256, "Q6_K": 256}


def unpack(kind: str, data: Bytes, rows: int, columns: int) -> BlockQuantized:
    """The matrix [rows, columns] of type ``kind`` (one of ``BLOCKS``) whose bytes are ``data``.

    Types of 5 and 6 bits come with 8 bits. The scale of a block of a super-block is a product, exact in
    float32.
    """
    return BLOCKS[kind](data.reshape(rows, columns // _ELEMENTS.get(kind, _BLOCK), -1))


def _q4_0(blocks: Bytes) -> BlockQuantized:
    """Float16 d, 16 bytes of codes; value = d * (code - 8)."""
    return _symmetric(4, _nibbles(blocks[..., 2:]), _half(blocks[..., :2]))


def _q4_1(blocks: Bytes) -> BlockQuantized:
    """Float16 d and m, 16 bytes of codes; value = d * code + m."""
    return _affine(_nibbles(blocks[..., 4:]), _half(blocks[..., :2]), _half(blocks[..., 2:4]))


def _q5_0(blocks: Bytes) -> BlockQuantized:
    """Float16 d, 4 bytes of fifth bits, 16 of low ones; value = d * (code - 16)."""
    codes = _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6])
    return _symmetric(8, codes + (128 - 16), _half(blocks[..., :2]))


def _q8_0(blocks: Bytes) -> BlockQuantized:
    """Float16 d and 32 signed bytes; value = d * byte."""
    # 128 added, which is the sign bit flipped.
    return _symmetric(8, blocks[..., 2:] + 128, _half(blocks[..., :2]))


def _q4_k(blocks: Bytes) -> BlockQuantized:
    """Float16 d and dmin, 8 scales and 8 minimums of 6 bits, 128 bytes of codes.

    Value = d * scale * code - dmin * minimum. 32 bytes have the codes of two blocks, one in each half.
    """
    scales, minimums = _scales_and_minimums(blocks)
    return _affine(_halves(blocks[..., 16:]), scales, minimums)


def _q6_k(blocks: Bytes) -> BlockQuantized:
    """128 bytes of low bits, 64 of two high ones, 16 signed scales of blocks of 16, float16 d.

    Value = d * scale * (code - 32). 64 bytes of low bits and 32 of high ones have 128 codes.
    """
    import numpy as np

    rows, count = blocks.shape[:2]
    low = blocks[..., :128].reshape(rows, count, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None]
    high = blocks[..., 128:192].reshape(rows, count, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    four, two = (
        (low & np.uint8(0x0F)).reshape(rows, count, 256),
        (high & np.uint8(3)).reshape(rows, count, 256),
    )
    codes: Bytes = four | two << np.uint8(4)
    small = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float32)
    scales = (_half(blocks[..., 208:])[..., None] * small).reshape(rows, -1)
    return _symmetric(8, codes + (128 - 32), scales, block_size=16)


BLOCKS: Mapping[str, Callable[[Bytes], BlockQuantized]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q6_K": _q6_k,
}
"""Types that come as ``BlockQuantized``, and what takes their bytes [rows, blocks, block bytes] apart."""

CODES: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("Q4_0", "Q4_1", "Q4_K"), (4, _BLOCK)),
    **dict.fromkeys(("Q5_0", "Q8_0"), (8, _BLOCK)),
    "Q6_K": (8, 16),
}
"""Bits and block size that each comes with."""


def _symmetric(bits: int, codes: Bytes, scales: Floats, block_size: int = _BLOCK) -> BlockQuantized:
    """Codes around 2 ** (bits - 1)."""
    rows = len(scales)
    return BlockQuantized(bits=bits, block_size=block_size, codes=codes.reshape(rows, -1), scales=scales)


def _affine(codes: Bytes, scales: Floats, minimums: Floats) -> BlockQuantized:
    """Values scale * code + minimum of 4 bits, with the minimum as a zero point."""
    import numpy as np

    flat = scales == 0
    if flat.any():
        # Where the scale is 0 every value is the minimum, whatever the codes are.
        codes = np.where(flat[..., None], np.uint8(0), codes.reshape(*flat.shape, _BLOCK))
    zero_points = np.where(flat, np.float32(-1), -minimums / np.where(flat, np.float32(1), scales))
    return BlockQuantized(
        bits=4,
        block_size=_BLOCK,
        codes=codes.reshape(len(scales), -1),
        scales=np.where(flat, minimums, scales),
        zero_points=zero_points,
    )


def _half(data: Bytes) -> Floats:
    """Pairs of bytes [rows, blocks, 2] as float16, widened: [rows, blocks]."""
    import numpy as np

    halves: npt.NDArray[np.float16] = np.ascontiguousarray(data).view("<f2")[..., 0]
    return halves.astype(np.float32)


def _nibbles(data: Bytes) -> Bytes:
    """Codes [rows, blocks, 32] of packed bytes [rows, blocks, 16]: low halves first, then the high ones."""
    import numpy as np

    return np.concatenate((data & 0x0F, data >> 4), axis=-1)


def _fifth_bits(data: Bytes) -> Bytes:
    """Each code's fifth bit [rows, blocks, 32], as 16 or 0, from bits [rows, blocks, 4], lowest first."""
    import numpy as np

    bits: Bytes = np.unpackbits(np.ascontiguousarray(data), axis=-1, bitorder="little")
    return bits << np.uint8(4)


def _halves(data: Bytes) -> Bytes:
    """Codes [rows, super-blocks, 8, 32] of packed bytes [rows, super-blocks, 128], 32 for two blocks."""
    import numpy as np

    rows, count = data.shape[:2]
    pairs = data.reshape(rows, count, 4, 1, _BLOCK) >> np.array([0, 4], np.uint8)[:, None]
    return (pairs & np.uint8(0x0F)).reshape(rows, count, 8, _BLOCK)


def _scales_and_minimums(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scales and minimums [rows, blocks] of super-blocks that begin with d, dmin and 12 bytes for both.

    Four bytes have the six bits of scales 0 to 3 and, above them, the high two of 4 to 7; four the same of
    minimums; four the low halves of scales and minimums 4 to 7.
    """
    import numpy as np

    rows = len(blocks)
    one, two, three = (blocks[..., start : start + 4] for start in (4, 8, 12))
    scales = np.concatenate((one & 0x3F, three & 0x0F | one >> 2 & 0x30), axis=-1)
    minimums = np.concatenate((two & 0x3F, three >> 4 | two >> 2 & 0x30), axis=-1)
    d, dmin = _half(blocks[..., :2])[..., None], _half(blocks[..., 2:4])[..., None]
    return (
        (d * scales.astype(np.float32)).reshape(rows, -1),
        (-dmin * minimums.astype(np.float32)).reshape(rows, -1),
    )
