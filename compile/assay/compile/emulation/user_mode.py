"""QEMU's user mode: programs of another machine, on this system's kernel.

What runs is the native runtime (``assay.compile.native``), so that neither Python nor any library of that
machine is needed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.compile.native import build_program, platform_of
from assay.errors import VerificationError
from assay.runtime.artifact import open_artifact
from assay.runtime.manifest import Manifest

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.compile.native import Platform
    from assay.compile.targets import Target
    from assay.compile.verify import Case

__all__ = ["UserMode", "find_user_mode"]

_TIMEOUT_SECONDS = 1200


@dataclass(frozen=True, kw_only=True)
class UserMode:
    """An emulator for programs of ``platform``: the command that comes before a program and its arguments."""

    command: tuple[str, ...]
    platform: Platform
    version: str

    @property
    def description(self) -> str:
        """Name and version, and the CPU that it is."""
        return f"{self.version}, {' '.join(self.command[1:])}"

    def run(
        self, artifact: Path, cases: Sequence[Case], *, threads: int = 2
    ) -> list[dict[str, npt.NDArray[Any]]]:
        """The outputs by name of the artifact in the folder ``artifact`` for each case.

        Its last level that the emulated CPU has is what runs. Raises VerificationError where it crashes,
        refuses the inputs, or takes too long, and what ``build_program`` raises.
        """
        program = build_program(self.platform)
        manifest = open_artifact(artifact, verify=False).manifest
        with tempfile.TemporaryDirectory(prefix="assay-emulated-") as name:
            command = [*self.command, str(program), str(artifact), "--threads", str(threads)]
            return _run_cases(command, manifest, cases, Path(name))


def find_user_mode(target: Target) -> UserMode | None:
    """The emulator that executes the code of ``target``, where that names one and it is installed."""
    platform = platform_of(target.triple)
    if not target.emulator or platform is None or shutil.which(target.emulator[0]) is None:
        return None
    return UserMode(command=target.emulator, platform=platform, version=_version(target.emulator[0]))


@cache
def _version(program: str) -> str:
    """``qemu-aarch64 7.2.22``, from what the program says of itself."""
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return " ".join(result.stdout.split()[:3:2]) or program


def _run_cases(
    command: Sequence[str], manifest: Manifest, cases: Sequence[Case], folder: Path
) -> list[dict[str, npt.NDArray[Any]]]:
    """One process a case, in order: what one writes into the cache of a decoder, the next one finds."""
    import numpy as np

    from assay.compile.verify_worker import decoder_cache

    names = [item.name for item in manifest.inputs]
    outputs = [item.name for item in manifest.outputs]
    for name, array in decoder_cache(manifest, [case.inputs for case in cases]).items():
        np.save(folder / f"input{names.index(name)}.npy", array)
    results = []
    for case in cases:
        for name, array in case.inputs.items():
            np.save(folder / f"input{names.index(name)}.npy", np.ascontiguousarray(array))
        files = [str(folder / f"input{number}.npy") for number in range(len(names))]
        _execute([*command, "--output", str(folder), *files])
        arrays = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(outputs)}
        results.append({name: arrays[name] for name in case.expected})
    return results


def _execute(command: Sequence[str]) -> None:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"The emulated model gave no outputs in {_TIMEOUT_SECONDS} s.") from error
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"it ended with status {result.returncode} and no message"
        raise VerificationError(f"The compiled model cannot be run under {command[0]}: {reason}")
