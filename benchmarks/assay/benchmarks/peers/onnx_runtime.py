"""ONNX Runtime on the model's canonical ONNX."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.benchmarks.peers.engine import ModelFiles, Session

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["OnnxRuntime", "file_size", "missing", "open_session", "version"]

_QUIET = 3  # errors only: its warnings would hide the line that tells why a worker failed


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime:
    """ONNX Runtime's CPU provider as it comes, but for the number of threads.

    Graph optimizations all on, N threads within an operator, one between operators, spinning as by default.
    """

    name: str = "onnxruntime"
    note: str = "the canonical ONNX on the CPU provider, all graph optimizations, default spinning"
    loads_file: bool = True

    def unavailable(self, files: ModelFiles) -> str | None:
        """Needs the package, and the canonical ONNX."""
        return missing(files.canonical)

    def version(self) -> str:
        """ONNX Runtime's version."""
        return version()

    def load(self, files: ModelFiles, threads: int) -> Session:
        """A session on the canonical ONNX."""
        return _Session(open_session(str(files.canonical), threads))

    def size_bytes(self, files: ModelFiles) -> int | None:
        """The canonical ONNX with its external data."""
        return file_size(files.canonical)


class _Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))


def missing(canonical: Path | None) -> str | None:
    """Why ONNX Runtime cannot run a model with this canonical ONNX, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (extra: compile)"
    if canonical is None:
        return "the model that the artifact was built from is not known"
    return None


def version() -> str:
    """ONNX Runtime's version."""
    return importlib.metadata.version("onnxruntime")


def open_session(path: str, threads: int) -> Any:
    """An ``InferenceSession`` on the CPU: all graph optimizations, ``threads`` threads within an operator."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def file_size(canonical: Path | None) -> int | None:
    """Bytes of a canonical ONNX with its external data."""
    if canonical is None:
        return None
    return sum(path.stat().st_size for path in canonical.parent.glob(f"{canonical.stem}.*"))
