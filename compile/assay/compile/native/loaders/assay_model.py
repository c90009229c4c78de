"""Runs the model of this folder from Python with NumPy and nothing else: the library beside does the work.

from assay_model import Model

model = Model()
outputs = model.run({"data": array})
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Model"]

_MOST_DIMENSIONS = 8
_LIBRARIES = {"win32": "assay_runtime.dll", "darwin": "libassay_runtime.dylib"}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * _MOST_DIMENSIONS),
    )


def _library(folder: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(folder / "lib" / _LIBRARIES.get(sys.platform, "libassay_runtime.so")))
    for name in ("assay_error", "assay_input_name", "assay_input_dtype", "assay_output_name"):
        getattr(library, name).restype = ctypes.c_char_p
    library.assay_open.restype = ctypes.c_void_p
    return library


class Model:
    """The model; ``threads``: 0 for one on each CPU. ``inputs`` and ``outputs`` are its names.

    Raises RuntimeError with what is wrong.
    """

    def __init__(self, folder: str | Path | None = None, threads: int = 0) -> None:
        place = Path(__file__).resolve().parent if folder is None else Path(folder).resolve()
        self._library = _library(place)
        self._model = ctypes.c_void_p(self._library.assay_open(str(place).encode(), threads))
        if not self._model:
            raise RuntimeError(self._library.assay_error().decode())
        count = self._library.assay_input_count(self._model)
        self.inputs = [self._library.assay_input_name(self._model, i).decode() for i in range(count)]
        self._dtypes = [self._library.assay_input_dtype(self._model, i).decode() for i in range(count)]
        count = self._library.assay_output_count(self._model)
        self.outputs = [self._library.assay_output_name(self._model, i).decode() for i in range(count)]

    def run(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name, for one array for each name in ``inputs``."""
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise RuntimeError(f"The model takes {', '.join(self.inputs)}; {missing[0]} is missing.")
        arrays = [
            np.require(inputs[name], dtype=dtype, requirements=("C", "W"))
            for name, dtype in zip(self.inputs, self._dtypes, strict=True)
        ]
        for name, array in zip(self.inputs, arrays, strict=True):
            if array.ndim > _MOST_DIMENSIONS:
                raise RuntimeError(f"Input {name} has too many dimensions.")
        given = (_Tensor * len(arrays))()
        for tensor, array, dtype in zip(given, arrays, self._dtypes, strict=True):
            tensor.data, tensor.dtype, tensor.rank = array.ctypes.data, dtype.encode(), array.ndim
            tensor.shape[: array.ndim] = array.shape
        results = (_Tensor * len(self.outputs))()
        if self._library.assay_run(self._model, given, results):
            raise RuntimeError(self._library.assay_error().decode())
        return {name: _array(tensor) for name, tensor in zip(self.outputs, results, strict=True)}

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self._library.assay_close(self._model)


def _array(tensor: _Tensor) -> npt.NDArray[Any]:
    """A copy of a result, whose memory the next run takes."""
    dtype, shape = np.dtype(tensor.dtype.decode()), tuple(tensor.shape[: tensor.rank])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(tensor.data, size), dtype).reshape(shape)
