"""The weights of a GGUF file, each read from its place when it is asked for."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from assay.errors import ModelError
from assay.models.decoders.weights import Tensor
from assay.models.sources.finite import check_finite
from assay.models.sources.gguf_blocks import BLOCKS, CODES, unpack
from assay.models.sources.gguf_header import GgufHeader, GgufTensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["DEQUANTIZED", "GgufWeights"]

_PLAIN = {"F32": "<f4", "F16": "<f2"}
DEQUANTIZED = ("Q5_1", "Q5_K")
"""Types of 5 bits with minimums, which no form of ONNX Runtime's products has: float32."""


class GgufWeights:
    """Tensors of a GGUF file by name; satisfies ``assay.models.decoders.weights.DecoderWeights``.

    F32, F16 and BF16 come as they are; matrices of Q4_0, Q4_1, Q5_0, Q8_0, Q4_K and Q6_K as
    ``BlockQuantized``, without loss; the types of ``DEQUANTIZED``, and blocks that are no matrix, as float32.
    Raises ModelError, naming the type and a tensor, where the file has any other type.
    """

    def __init__(self, header: GgufHeader) -> None:
        self._tensors = header.tensors
        known = {*_PLAIN, "BF16", *BLOCKS, *DEQUANTIZED}
        for tensor in header.tensors.values():
            if tensor.type not in known:
                raise ModelError(
                    f"The tensor {tensor.name!r} of {header.path.name!r} has the type {tensor.type}, "
                    "which is not read.",
                    hint=f"Types that are read: {', '.join(sorted(known))}.",
                )
        with header.path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        last = max((tensor.offset + tensor.size for tensor in header.tensors.values()), default=0)
        if len(self._data) < last:
            raise ModelError(f"The GGUF file {str(header.path)!r} changed while it was read.")

    def names(self) -> Sequence[str]:
        """Names of all tensors, in the order of the file."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The row-major shape: [out, in] for a matrix. Raises KeyError."""
        return self._tensors[name].shape

    def type(self, name: str) -> str:
        """The type of a tensor by GGUF's name, such as ``Q4_1``. Raises KeyError."""
        return self._tensors[name].type

    def canonical_bytes(self, name: str) -> int:
        """Bytes of the tensor in the canonical model, at most: codes, and two float32 a block."""
        tensor = self._tensors[name]
        if tensor.type in DEQUANTIZED:
            return 4 * math.prod(tensor.shape)
        if tensor.type not in BLOCKS:
            return tensor.size
        bits, block = CODES[tensor.type]
        return math.prod(tensor.shape) * (bits * block + 64) // (8 * block)

    def read(self, name: str) -> Tensor:
        """The tensor; float32 and float16 are views of the mapped file. Raises KeyError.

        Raises ModelError for weights that are not finite.
        """
        tensor = self._tensors[name]
        if tensor.type in _PLAIN:
            values = self._bytes(tensor).view(_PLAIN[tensor.type]).reshape(tensor.shape)
        elif tensor.type == "BF16":
            import ml_dtypes

            values = self._bytes(tensor).view(ml_dtypes.bfloat16).reshape(tensor.shape)
        elif tensor.type in BLOCKS and len(tensor.shape) == 2:
            matrix = unpack(tensor.type, self._bytes(tensor), tensor.shape[0], tensor.shape[1])
            check_finite(name, matrix.scales, matrix.zero_points)
            return matrix
        else:
            values = self._dequantized(tensor)
        check_finite(name, values)
        return values

    def _bytes(self, tensor: GgufTensor) -> npt.NDArray[np.uint8]:
        import numpy as np

        return np.frombuffer(self._data, np.uint8, tensor.size, tensor.offset)

    def _dequantized(self, tensor: GgufTensor) -> npt.NDArray[Any]:
        import numpy as np
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        rows = self._bytes(tensor).reshape(*tensor.shape[:-1], -1)
        # A scale that is not finite makes values that are not, and is reported as that.
        with np.errstate(all="ignore"):
            values = dequantize(rows, GGMLQuantizationType[tensor.type])
        return values.astype(np.float32, copy=False).reshape(tensor.shape)
