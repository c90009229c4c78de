"""Weights on their way into an ONNX file, never all in memory at once."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from assay.models.export.weights import INLINE_BYTES, write_external

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = ["InitializerWriter"]

# Shapes, axes and small constants stay in the graph, where checks and inference see them.
_SMALL_BYTES = 4096


class InitializerWriter:
    """Makes initializers of arrays: inside the graph while they are under 64 MiB in all, else in a file.

    The file ``data`` is made when it is needed, and is to lie beside the ONNX file. Used as a context; an
    error in it leaves no file behind.
    """

    def __init__(self, data: Path) -> None:
        self._path = data
        self._file: BinaryIO | None = None
        self._inline_bytes = 0
        self.tensors: list[onnx.TensorProto] = []

    def __enter__(self) -> InitializerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            if error is not None:
                self._path.unlink()

    def add(self, name: str, array: npt.NDArray[Any]) -> str:
        """Store ``array`` as the initializer ``name``; its name."""
        import onnx

        tensor = onnx.TensorProto(
            name=name, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape
        )
        if array.nbytes <= _SMALL_BYTES:
            tensor.raw_data = array.tobytes()
        elif self._file is not None:
            self._move(tensor, array.tobytes())
        else:
            tensor.raw_data = array.tobytes()
            self._inline_bytes += array.nbytes
        self.tensors.append(tensor)
        if self._file is None and self._inline_bytes > INLINE_BYTES:
            self._open()
        return name

    def _open(self) -> None:
        self._file = self._path.open("wb")
        for tensor in self.tensors:
            if len(tensor.raw_data) > _SMALL_BYTES:
                self._move(tensor, tensor.raw_data)

    def _move(self, tensor: onnx.TensorProto, content: bytes) -> None:
        assert self._file is not None
        moved = write_external(self._file, self._path.name, content)
        tensor.ClearField("raw_data")
        tensor.data_location = moved.data_location
        tensor.external_data.extend(moved.external_data)
