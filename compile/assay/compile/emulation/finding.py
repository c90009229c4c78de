"""What executes the code of a target that this machine's CPU does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from assay.compile.emulation.user_mode import find_user_mode
from assay.compile.targets.target import Launcher
from assay.compile.verify import run_artifact
from assay.runtime.artifact import open_artifact
from assay.runtime.drivers.wasm_module import wasm_engine

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.compile.targets import Target
    from assay.compile.verify import Case

__all__ = ["Emulator", "find_emulator"]


class Emulator(Protocol):
    """What executes code for another machine."""

    @property
    def description(self) -> str:
        """Name and version, and what it emulates."""
        ...

    def run(self, artifact: Path, cases: Sequence[Case]) -> list[dict[str, npt.NDArray[Any]]]:
        """The outputs by name of the artifact's last level for each case. Raises VerificationError."""
        ...


@dataclass(frozen=True, kw_only=True)
class Wasmtime:
    """wasmtime in a Python process of its own, by the driver of the runtime."""

    description: str

    def run(self, artifact: Path, cases: Sequence[Case]) -> list[dict[str, npt.NDArray[Any]]]:
        """The outputs of the level for WebAssembly."""
        levels = open_artifact(artifact, verify=False).manifest.levels
        return run_artifact(artifact, cases, level=levels[-1].target.name)


def find_emulator(target: Target) -> Emulator | None:
    """What executes the code of ``target`` here; None where nothing that is installed does."""
    if target.launcher is Launcher.WASM:
        engine = wasm_engine()
        return None if engine is None else Wasmtime(description=engine)
    return find_user_mode(target)
