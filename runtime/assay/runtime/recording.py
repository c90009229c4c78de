"""Write the inputs of runs to a folder, as a workload that a profile-guided build can take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["record_inputs"]

_DIGITS = 6


def record_inputs(folder: Path, inputs: Mapping[str, npt.NDArray[Any]]) -> Path:
    """Write ``inputs`` by name as the next case of ``folder``, ``000000.npz`` and so on; gives its path.

    A case appears whole or not at all. Raises StorageError where it cannot be written.
    """
    import io
    import zipfile

    import numpy as np

    from assay.runtime.atomic import replace_file, storage_errors

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        taken = [int(path.stem) for path in folder.glob("*.npz") if path.stem.isdecimal()]
    path = folder / f"{max(taken, default=-1) + 1:0{_DIGITS}}.npz"
    with replace_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in inputs.items():
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(array), allow_pickle=False)
            # A name with a slash would be a folder in the archive, and is read back as it is.
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path
