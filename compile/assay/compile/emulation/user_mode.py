"""QEMU's user mode and Wine: programs of another machine or system, on this system's kernel.

What runs is the native runtime (``assay.compile.native``), so that neither Python nor any library of that
machine is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.compile.cache import BuildCache
from assay.compile.native import build_program, platform_of
from assay.errors import VerificationError
from assay.runtime.artifact import open_artifact
from assay.runtime.cpu import missing_features
from assay.runtime.manifest import Manifest

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.compile.native import Platform
    from assay.compile.targets import Target
    from assay.compile.verify import Case

__all__ = ["UserMode", "emulator_note", "find_user_mode"]

_TIMEOUT_SECONDS = 1200
# Debian's package wine64 puts its program beside its libraries.
_WINE_FOLDER = "/usr/lib/wine"
# No messages of its own, and no questions about .NET and HTML.
_WINE = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}


@dataclass(frozen=True, kw_only=True)
class UserMode:
    """An emulator for programs of ``platform``: the command that comes before a program and its arguments.

    ``environment``: variables that it needs.
    """

    command: tuple[str, ...]
    platform: Platform
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """Name and version, and the CPU that it is."""
        return ", ".join(filter(None, (self.version, " ".join(self.command[1:]))))

    def run(
        self, artifact: Path, cases: Sequence[Case], *, level: str | None = None, threads: int = 2
    ) -> list[dict[str, npt.NDArray[Any]]]:
        """The outputs by name of the artifact in the folder ``artifact`` for each case.

        ``level``, or the last level that the emulated CPU has, is what runs. Raises VerificationError where
        it crashes, refuses the inputs, or takes too long, and what ``build_program`` raises.
        """
        command = [*self._program(artifact), "--threads", str(threads)]
        manifest = open_artifact(artifact, verify=False).manifest
        with tempfile.TemporaryDirectory(prefix="assay-emulated-") as name:
            environment = {**os.environ, **self.environment, "ASSAY_LEVEL": level or ""}
            return _run_cases(command, environment, manifest, cases, Path(name))

    def seconds(self, artifact: Path, inputs: Mapping[str, npt.NDArray[Any]], *, repeats: int) -> float:
        """The mean seconds of ``repeats`` runs of the artifact's last level on ``inputs``, all in order.

        Raises what ``run`` does.
        """
        import numpy as np

        manifest = open_artifact(artifact, verify=False).manifest
        with tempfile.TemporaryDirectory(prefix="assay-emulated-") as name:
            files = [Path(name) / f"input{number}.npy" for number in range(len(manifest.inputs))]
            for item, file in zip(manifest.inputs, files, strict=True):
                np.save(file, np.ascontiguousarray(inputs[item.name]))
            command = [*self._program(artifact), "--repeat", str(repeats), *map(str, files)]
            printed = _execute(command, {**os.environ, **self.environment, "ASSAY_LEVEL": ""})
        return float(printed.rpartition("mean ")[2].partition(" s")[0])

    def _program(self, artifact: Path) -> list[str]:
        return [*self.command, str(build_program(self.platform)), str(artifact.resolve())]


def find_user_mode(target: Target) -> UserMode | None:
    """The emulator that executes the code of ``target``, where that names one and it is installed."""
    platform = platform_of(target.triple)
    if not target.emulator or platform is None:
        return None
    program = shutil.which(target.emulator[0], path=f"{os.environ.get('PATH', os.defpath)}:{_WINE_FOLDER}")
    if program is None:
        return None
    environment = {}
    if platform.system == "windows":
        if missing_features(target.features):  # Wine runs the code on this machine's CPU
            return None
        environment = _WINE | {"WINEPREFIX": str(BuildCache().folder / "wine")}
    command = (program, *target.emulator[1:])
    return UserMode(command=command, platform=platform, version=_version(program), environment=environment)


def emulator_note(description: str) -> str:
    """What the manifest says of code that ran under the emulator of that description."""
    return f"Executed under {description}: the machine that built it is another, or runs another system."


@cache
def _version(program: str) -> str:
    """``qemu-aarch64 7.2.22`` or ``wine-8.0``, from what the program says of itself."""
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    words = result.stdout.split()
    return " ".join(words[:3:2] if words[1:2] == ["version"] else words[:1]) or Path(program).name


def _run_cases(
    command: Sequence[str],
    environment: Mapping[str, str],
    manifest: Manifest,
    cases: Sequence[Case],
    folder: Path,
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
        _execute([*command, "--output", str(folder), *files], environment)
        arrays = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(outputs)}
        results.append({name: arrays[name] for name in case.expected})
    return results


def _execute(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"The emulated model gave no outputs in {_TIMEOUT_SECONDS} s.") from error
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"it ended with status {result.returncode} and no message"
        raise VerificationError(f"The compiled model cannot be run under {command[0]}: {reason}")
    return result.stdout
