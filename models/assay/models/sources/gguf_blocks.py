"""GGUF's blocks of 32 codes behind a scale (and a minimum), taken apart without loss.

The layouts are those of ``block_q4_0``, ``block_q4_1`` and ``block_q8_0`` in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from assay.models.decoders.weights import BlockQuantized

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["BLOCKS", "unpack"]

_BLOCK = 32


def unpack(kind: str, data: npt.NDArray[np.uint8], rows: int, columns: int) -> BlockQuantized:
    """The matrix [rows, columns] of type ``kind`` (one of ``BLOCKS``) whose bytes are ``data``."""
    blocks = columns // _BLOCK
    return BLOCKS[kind](data.reshape(rows, blocks, -1))


def _q4_0(blocks: npt.NDArray[np.uint8]) -> BlockQuantized:
    """Per block a float16 scale d and 16 bytes of codes; value = d * (code - 8)."""
    return BlockQuantized(
        bits=4, block_size=_BLOCK, codes=_nibbles(blocks[..., 2:]), scales=_half(blocks[..., :2])
    )


def _q4_1(blocks: npt.NDArray[np.uint8]) -> BlockQuantized:
    """Per block float16 d and m and 16 bytes of codes; value = d * code + m."""
    import numpy as np

    scale, minimum = _half(blocks[..., :2]), _half(blocks[..., 2:4])
    flat = scale == 0
    codes = _nibbles(blocks[..., 4:])
    if flat.any():
        # Where d is 0 every value is m, whatever the codes are.
        by_block = codes.reshape(*flat.shape, _BLOCK)
        by_block[flat] = 0
    zero_points = np.where(flat, np.float32(-1), -minimum / np.where(flat, np.float32(1), scale))
    return BlockQuantized(
        bits=4,
        block_size=_BLOCK,
        codes=codes,
        scales=np.where(flat, minimum, scale),
        zero_points=zero_points,
    )


def _q8_0(blocks: npt.NDArray[np.uint8]) -> BlockQuantized:
    """Per block a float16 scale d and 32 signed bytes; value = d * code, here with codes raised by 128."""
    import numpy as np

    # The sign bit flipped is 128 added.
    codes = (blocks[..., 2:] ^ np.uint8(0x80)).reshape(blocks.shape[0], -1)
    return BlockQuantized(bits=8, block_size=_BLOCK, codes=codes, scales=_half(blocks[..., :2]))


BLOCKS: Mapping[str, Callable[[npt.NDArray[np.uint8]], BlockQuantized]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q8_0": _q8_0,
}
"""Types that come as ``BlockQuantized``, and what takes their bytes [rows, blocks, block bytes] apart."""


def _half(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pairs of bytes [rows, blocks, 2] as float16, widened: [rows, blocks]."""
    import numpy as np

    halves: npt.NDArray[np.float16] = np.ascontiguousarray(data).view("<f2")[..., 0]
    return halves.astype(np.float32)


def _nibbles(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Codes [rows, columns] of packed bytes [rows, blocks, 16]: low halves first, then the high ones."""
    import numpy as np

    both = np.concatenate((data & np.uint8(0x0F), data >> np.uint8(4)), axis=-1)
    return both.reshape(data.shape[0], -1)
