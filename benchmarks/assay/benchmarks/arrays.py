"""Arrays by name in one .npz file, for what passes between the harness and its workers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.runtime.memory import empty_aligned

__all__ = ["load_arrays", "save_arrays"]


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays under any name, even one that ``numpy.savez`` takes for its own argument."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(array), allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays by name, each at a 64-byte boundary."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: _aligned(archive[name]) for name in archive.files}


def _aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    copy = empty_aligned(array.shape, array.dtype)
    copy[...] = array
    return copy
