"""The memory of the cache: keys and values of all pages, in arrays that kernels write in place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.runtime.packing import ALIGNMENT

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.generate.pages import PageCopy
    from assay.runtime.manifest import DecoderInfo

__all__ = ["KvCache", "page_bytes"]


class KvCache:
    """Keys and values of ``pages`` pages.

    ``arrays`` are ``[pages, layers, 2, kv_heads, page_tokens * head_dim]`` of the model's cache dtype and,
    for int8, the scales, float32 ``[pages, layers, 2, kv_heads, page_tokens]``; in a page, keys are
    ``[head_dim, page_tokens]`` and values ``[page_tokens, head_dim]``. All start as zeros, so that what no
    token has written is finite; the system gives memory when a page is first written.
    """

    def __init__(self, info: DecoderInfo, pages: int) -> None:
        self.arrays = tuple(
            zeros_aligned((pages, *shape), np.dtype(dtype)) for shape, dtype in _page_arrays(info)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays)

    def copy_page(self, copy: PageCopy) -> None:
        """Carry out one copy."""
        for array in self.arrays:
            array[copy.destination] = array[copy.source]


def page_bytes(info: DecoderInfo) -> int:
    """Bytes that one page takes, in all layers."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in _page_arrays(info))


def zeros_aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A new contiguous array of zeros, 64-byte aligned, in memory that the system gives when it is used."""
    size = math.prod(shape) * dtype.itemsize
    buffer = np.zeros(size + ALIGNMENT, np.uint8)
    start = -buffer.__array_interface__["data"][0] % ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def _page_arrays(info: DecoderInfo) -> list[tuple[tuple[int, ...], str]]:
    """Shape and dtype of one page of each array."""
    heads = (info.layers, 2, info.kv_heads)
    arrays: list[tuple[tuple[int, ...], str]] = [
        ((*heads, info.page_tokens * info.head_dim), info.cache_dtype)
    ]
    if info.cache_dtype == "int8":
        arrays.append(((*heads, info.page_tokens), "float32"))
    return arrays
