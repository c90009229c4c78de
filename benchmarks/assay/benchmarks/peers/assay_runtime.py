"""Our own engine: the artifact on Assay's runtime."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from assay.benchmarks.peers.engine import ModelFiles, Session

__all__ = ["AssayRuntime", "artifact_bytes"]


@dataclass(frozen=True, kw_only=True)
class AssayRuntime:
    """Loads the artifact as users do, digests checked."""

    name: str = "assay"
    note: str = "the artifact, loaded with digests checked"
    loads_file: bool = True

    def unavailable(self, files: ModelFiles) -> str | None:
        """Always None: without an artifact there is nothing to compare."""
        return None

    def version(self) -> str:
        """Assay's version."""
        return importlib.metadata.version("assay")

    def load(self, files: ModelFiles, threads: int) -> Session:
        """The artifact, loaded."""
        from assay.runtime import load

        return load(files.artifact, threads=threads)

    def size_bytes(self, files: ModelFiles) -> int | None:
        """All files of the artifact."""
        return artifact_bytes(files.artifact)


def artifact_bytes(path: Path) -> int:
    """Bytes of the artifact at ``path``, a file or a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
