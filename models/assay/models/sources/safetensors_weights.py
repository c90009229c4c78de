"""The weights of safetensors files, one or sharded, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import MissingDependencyError, ModelError
from assay.models.sources.finite import check_finite
from assay.models.sources.safetensors_header import StoredTensor, read_safetensors_header

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["SafetensorsWeights"]

_READ = ("F32", "F16", "BF16")


class SafetensorsWeights:
    """Tensors of safetensors files by name; satisfies ``assay.models.decoders.weights.DecoderWeights``.

    ``shards`` maps a name to the file that holds it (a sharded model's index); without, every tensor of
    ``files`` counts. Raises ModelError for a damaged header, a tensor that its shard lacks, or one that is in
    two files.
    """

    def __init__(self, files: Sequence[Path], shards: Mapping[str, Path] | None = None) -> None:
        self._tensors: dict[str, tuple[Path, StoredTensor]] = {}
        for path in files:
            stored = read_safetensors_header(path)
            for name, tensor in stored.items():
                if shards is not None and shards.get(name) != path:
                    continue
                if name in self._tensors:
                    raise ModelError(f"The tensor {name!r} is in {path.name!r} and in another file.")
                self._tensors[name] = (path, tensor)
        for name, path in (shards or {}).items():
            if name not in self._tensors:
                raise ModelError(f"The index places the tensor {name!r} in {path.name!r}, which lacks it.")

    def names(self) -> Sequence[str]:
        """Names of all tensors, file by file in the order of their data."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The row-major shape. Raises KeyError."""
        return self._tensors[name][1].shape

    def size(self, name: str) -> int:
        """Bytes of the tensor in its file. Raises KeyError."""
        return self._tensors[name][1].size

    def read(self, name: str) -> npt.NDArray[Any]:
        """The tensor as float32, float16 or ``ml_dtypes.bfloat16``. Raises KeyError.

        Raises ModelError for another dtype, and for weights that are not finite.
        """
        path, stored = self._tensors[name]
        if stored.dtype not in _READ:
            raise ModelError(
                f"The tensor {name!r} of {path.name!r} has the dtype {stored.dtype}, which is not read.",
                hint=f"Dtypes that are read: {', '.join(_READ)}.",
            )
        try:
            from safetensors import SafetensorError, safe_open
        except ImportError:
            raise MissingDependencyError("safetensors", "compile") from None
        try:
            with safe_open(path, framework="numpy") as file:
                values: npt.NDArray[Any] = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"The tensor {name!r} of {path.name!r} cannot be read: {error}.") from error
        check_finite(name, values)
        return values
