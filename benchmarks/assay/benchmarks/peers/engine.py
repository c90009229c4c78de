"""What an engine must offer to be measured. Free of heavy imports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Engine", "ModelFiles", "Session"]


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The forms of one model that engines load.

    ``name``: as registered, for engines that build the model from its definition. ``artifact``: ours.
    ``canonical``: its canonical ONNX, None where it is not at hand.
    """

    name: str
    artifact: Path
    canonical: Path | None


class Session(Protocol):
    """A loaded model."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name; NumPy in and NumPy out, which is what is timed."""
        ...


class Engine(Protocol):
    """One engine."""

    @property
    def name(self) -> str:
        """The name by which it is asked for and recorded."""
        ...

    @property
    def note(self) -> str:
        """What exactly it runs, for readers of its figures."""
        ...

    @property
    def loads_file(self) -> bool:
        """False where loading builds the model anew, so that the time of it says nothing about deployment."""
        ...

    def unavailable(self, files: ModelFiles) -> str | None:
        """Why this engine cannot run the model here, or None. Imports nothing heavy."""
        ...

    def version(self) -> str:
        """The version of the engine that is installed."""
        ...

    def load(self, files: ModelFiles, threads: int) -> Session:
        """Import the engine and load the model, set to run on ``threads`` threads."""
        ...

    def size_bytes(self, files: ModelFiles) -> int | None:
        """Bytes of the files that the engine loads; None where there are none."""
        ...
