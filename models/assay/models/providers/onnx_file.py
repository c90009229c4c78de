"""A model that is an ONNX file on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay.errors import ModelError

__all__ = ["OnnxFile"]


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """An ONNX file, read where it lies; its external data must lie in the same folder."""

    path: Path

    def onnx_path(self, folder: Path) -> Path:
        """The file itself; raises ModelError when it does not exist or is a folder."""
        if not self.path.is_file():
            what = "a folder, not a file" if self.path.is_dir() else "not there"
            raise ModelError(f"The model file {str(self.path)!r} is {what}.")
        return self.path
