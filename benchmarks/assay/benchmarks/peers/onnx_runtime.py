"""ONNX Runtime on the model's canonical ONNX."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.benchmarks.peers.engine import ModelFiles, Session

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["OnnxRuntime"]

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
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed (extra: compile)"
        if files.canonical is None:
            return "the model that the artifact was built from is not known"
        return None

    def version(self) -> str:
        """ONNX Runtime's version."""
        return importlib.metadata.version("onnxruntime")

    def load(self, files: ModelFiles, threads: int) -> Session:
        """A session on the canonical ONNX."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        return _Session(
            onnxruntime.InferenceSession(str(files.canonical), options, providers=["CPUExecutionProvider"])
        )

    def size_bytes(self, files: ModelFiles) -> int | None:
        """The canonical ONNX with its external data."""
        if files.canonical is None:
            return None
        return sum(path.stat().st_size for path in files.canonical.parent.glob(f"{files.canonical.stem}.*"))


class _Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))
