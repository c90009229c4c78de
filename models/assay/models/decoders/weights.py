"""The weights of a decoder model as their source stores them: by name, read one at a time.

Readers of GGUF files, Hugging Face folders and PyTorch state dicts satisfy ``DecoderWeights``. Names and
shapes are the source's own; ``assay.models.decoders.architectures`` maps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["BlockQuantized", "DecoderWeights", "Tensor", "dequantize"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockQuantized:
    """A matrix [rows, columns] quantized in blocks of ``block_size`` consecutive elements of a row.

    The value of an element is ``scale * (code - zero_point)`` of its block, where ``zero_points`` None stands
    for ``2 ** (bits - 1)`` everywhere. ``columns`` is a multiple of ``block_size``, a power of two above 8.

    A GGUF Q4_1 block (float16 d and m, value = d * code + m) has scale d and zero point -m/d; where d is 0,
    scale m, zero point -1 and codes 0. Either way ``float16(-zero_point * scale)`` gives m back exactly.
    """

    bits: int  # 4 or 8
    block_size: int
    codes: npt.NDArray[np.uint8]  # [rows, columns], one code a byte, each below 2 ** bits
    scales: npt.NDArray[np.float32]  # [rows, blocks]
    zero_points: npt.NDArray[np.float32] | None = None  # [rows, blocks]

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {self.bits}")
        rows, columns = self.codes.shape
        if self.block_size < 16 or self.block_size & (self.block_size - 1):
            raise ValueError(f"the block size must be a power of two from 16 on, not {self.block_size}")
        if columns % self.block_size:
            raise ValueError(f"{columns} columns are no multiple of the block size {self.block_size}")
        expected = (rows, columns // self.block_size)
        for name, array in (("scales", self.scales), ("zero_points", self.zero_points)):
            if array is not None and array.shape != expected:
                raise ValueError(f"{name} have shape {array.shape}, not {expected}")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = self.codes.shape
        return rows, columns


Tensor: TypeAlias = "npt.NDArray[Any] | BlockQuantized"


class DecoderWeights(Protocol):
    """Named tensors of a model. Nothing is read before ``read``."""

    def names(self) -> Sequence[str]:
        """Names of all tensors, in the source's order."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in row-major order (a GGUF's dimensions reversed): [out, in] for a matrix."""
        ...

    def read(self, name: str) -> Tensor:
        """An array of float32, float16 or ``ml_dtypes.bfloat16``, or a ``BlockQuantized`` matrix."""
        ...


def dequantize(matrix: BlockQuantized) -> npt.NDArray[np.float32]:
    """The values [rows, columns] of a block-quantized matrix, computed in float32."""
    import numpy as np

    rows, columns = matrix.shape
    codes = matrix.codes.reshape(rows, columns // matrix.block_size, matrix.block_size).astype(np.float32)
    zero = np.float32(2 ** (matrix.bits - 1)) if matrix.zero_points is None else matrix.zero_points[..., None]
    values: npt.NDArray[np.float32] = ((codes - zero) * matrix.scales[..., None]).reshape(rows, columns)
    return values
