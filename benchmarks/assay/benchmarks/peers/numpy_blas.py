"""NumPy with the BLAS that it was built with, on reference kernels alone: it runs no models."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.benchmarks.peers.engine import ModelFiles, Session

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.benchmarks.kernels import KernelSpec

__all__ = ["NumPy"]


@dataclass(frozen=True, kw_only=True)
class NumPy:
    """A kernel as one writes it in NumPy; matrix products are BLAS's, on N threads, and all else on one."""

    name: str = "numpy"
    note: str = "the kernel in NumPy, matrix products by its BLAS"
    loads_file: bool = False

    def unavailable(self, files: ModelFiles) -> str | None:
        """Needs a reference kernel."""
        from assay.benchmarks.kernels import kernels

        return None if files.name in kernels() else f"{files.name} is no reference kernel"

    def version(self) -> str:
        """NumPy's version."""
        return importlib.metadata.version("numpy")

    def load(self, files: ModelFiles, threads: int) -> Session:
        """The kernel's function; the number of threads was set before NumPy was imported."""
        from assay.benchmarks.kernels import kernels

        return _Session(kernels()[files.name])

    def size_bytes(self, files: ModelFiles) -> int | None:
        """None: there is no file."""
        return None


class _Session:
    def __init__(self, spec: KernelSpec) -> None:
        self._spec = spec

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return {"y": self._spec.numpy(*(inputs[name] for name in self._spec.inputs))}
