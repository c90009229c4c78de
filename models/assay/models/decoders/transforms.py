"""What is done to stored tensors on their way into the canonical decoder, on quantized ones without loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from assay.errors import ModelError
from assay.models.decoders.mapping import Transform
from assay.models.decoders.weights import BlockQuantized, Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["join_rows", "transform"]


def transform(tensor: Tensor, kind: Transform, *, head_dim: int, name: str) -> Tensor:
    """``tensor`` after ``kind``; ``head_dim`` is the number of rows of a head.

    Raises ModelError for a transform that a block-quantized tensor does not go through without loss.
    """
    match kind:
        case Transform.NONE:
            return tensor
        case Transform.UNPERMUTE:
            return _take_rows(tensor, _halves(tensor.shape[0], head_dim))
        case Transform.TRANSPOSE if not isinstance(tensor, BlockQuantized):
            return _contiguous(tensor.T)
        case Transform.ADD_ONE if not isinstance(tensor, BlockQuantized):
            return _one_plus(tensor)
    raise ModelError(f"The tensor {name!r} is block-quantized, where its architecture has plain numbers.")


def join_rows(parts: Sequence[Tensor]) -> Tensor | None:
    """One matrix or vector of the rows of all parts; None where they are not stored in the same way."""
    first = parts[0]
    if len(parts) == 1:
        return first
    import numpy as np

    if isinstance(first, BlockQuantized):
        blocks = [part for part in parts if isinstance(part, BlockQuantized)]
        forms = {(b.bits, b.block_size, b.zero_points is None) for b in blocks}
        if len(forms) != 1 or len(blocks) < len(parts):
            return None
        zeros = [b.zero_points for b in blocks if b.zero_points is not None]
        return BlockQuantized(
            bits=first.bits,
            block_size=first.block_size,
            codes=np.concatenate([b.codes for b in blocks]),
            scales=np.concatenate([b.scales for b in blocks]),
            zero_points=np.concatenate(zeros) if zeros else None,
        )
    arrays = [part for part in parts if not isinstance(part, BlockQuantized)]
    if len(arrays) < len(parts) or len({array.dtype for array in arrays}) != 1:
        return None
    return np.concatenate(arrays)


def _take_rows(tensor: Tensor, rows: npt.NDArray[np.int64]) -> Tensor:
    if not isinstance(tensor, BlockQuantized):
        return tensor[rows]
    return BlockQuantized(
        bits=tensor.bits,
        block_size=tensor.block_size,
        codes=tensor.codes[rows],
        scales=tensor.scales[rows],
        zero_points=None if tensor.zero_points is None else tensor.zero_points[rows],
    )


def _halves(rows: int, head_dim: int) -> npt.NDArray[np.int64]:
    """For each row in halves, where it is when the rows of each head are in pairs."""
    import numpy as np

    paired = np.arange(rows).reshape(rows // head_dim, head_dim // 2, 2)
    order: npt.NDArray[np.int64] = paired.swapaxes(1, 2).reshape(rows)
    return order


def _contiguous(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import numpy as np

    return np.ascontiguousarray(array)


def _one_plus(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    import numpy as np

    # In float32, as the models do: in bfloat16 the sum would lose most of the weight.
    return array.astype(np.float32) + np.float32(1)
