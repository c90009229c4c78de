"""Arrays that lie in memory where kernels can read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.runtime.packing import ALIGNMENT

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["empty_aligned", "writable_view"]


def empty_aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A new contiguous array, 64-byte aligned, whose content is arbitrary."""
    size = math.prod(shape) * dtype.itemsize
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.__array_interface__["data"][0] % ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


class _Memory:
    """Memory described to NumPy as writable, and what keeps it alive."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self.owner = array


def writable_view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view of a read-only array that DLPack lets pass; kernels read their inputs and never write them."""
    return np.asarray(_Memory(array))
