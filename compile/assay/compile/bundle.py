"""A folder with all that a device needs to run a model: artifact, runtime library, program, loaders."""

from __future__ import annotations

import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from assay.compile.native import Platform, build_library, build_program, find_platform, platform_of
from assay.compile.native.toolchain import SOURCES
from assay.errors import ArtifactError, StorageError, UsageError
from assay.progress import Progress, SilentProgress
from assay.runtime.artifact import Artifact, open_artifact, write_artifact
from assay.runtime.kernels import kernels_file
from assay.runtime.manifest import Execution, Level, Manifest

__all__ = ["Bundle", "write_bundle"]

_DRIVER = "plan-cpu"
_README = """\
{model} for {platform}, made by Assay {version}. {executed}

  bin/{program} . INPUT.npy ... --output FOLDER   run it on arrays in NumPy's files; --help says more
  assay_model.py                                  from Python with NumPy: Model().run({{name: array}})
  include/assay.h, include/assay.hpp, lib/        from C and C++; example.cc shows how

Nothing else is needed. The licence of the model: {licence}.
"""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was written: bytes of all files and of the model's, and whether its code ever ran."""

    path: Path
    platform: str
    level: str
    executed: Execution
    bytes: int
    model_bytes: int


def write_bundle(
    artifact: Path,
    destination: Path,
    *,
    platform: str,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Write a bundle of ``artifact`` for the platform of that name to the folder ``destination``.

    All levels that are for the platform go in; the device takes the last one that its CPU has. Raises
    UnknownNameError for another platform, ArtifactError where the artifact has no level for it, or one that
    needs TVM's virtual machine, UsageError where ``destination`` is there already and no bundle, and
    StorageError.
    """
    progress = progress or SilentProgress()
    chosen = find_platform(platform)
    opened = open_artifact(artifact)
    levels = _levels_for(opened.manifest, chosen)
    _check_destination(destination)
    with progress.step("compile the runtime"):
        program, library = build_program(chosen, cache=cache), build_library(chosen, cache=cache)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=destination.parent) as name:
            folder = Path(name) / "bundle"
            _fill(folder, opened, levels, program, library)
            (folder / "README.txt").write_text(_readme(opened.manifest, levels, chosen))
            shutil.rmtree(destination, ignore_errors=True)
            folder.replace(destination)
    except OSError as error:
        raise StorageError(
            f"The bundle {destination} cannot be written: {error.strerror or error}."
        ) from error
    return Bundle(
        path=destination,
        platform=chosen.name,
        level=levels[-1].target.name,
        executed=levels[-1].executed,
        bytes=_size(destination),
        model_bytes=_size(destination / "model"),
    )


def _levels_for(manifest: Manifest, platform: Platform) -> tuple[Level, ...]:
    """The levels for ``platform``, which need no more than the native runtime."""
    fitting = [each for each in manifest.levels if platform_of(each.target.triple) == platform]
    if not fitting:
        names = ", ".join(each.target.name for each in manifest.levels)
        raise ArtifactError(
            f"The artifact has no level for {platform.name}, only {names}.",
            hint=f"Build it for that platform: assay build MODEL --target TARGET --platform {platform.name}.",
        )
    able = tuple(each for each in fitting if each.entry.driver == _DRIVER)
    if not able:
        raise ArtifactError(
            f"The code for {fitting[-1].target.name} needs TVM's virtual machine, which a bundle is without.",
            hint=f"Build it with --platform {platform.name}, or run it where Assay is installed.",
        )
    return able


def _check_destination(destination: Path) -> None:
    if destination.exists() and not (destination / "model" / "manifest.json").is_file():
        raise UsageError(f"{destination} is there already, and is no bundle.", hint="Name another folder.")


def _fill(folder: Path, artifact: Artifact, levels: tuple[Level, ...], program: Path, library: Path) -> None:
    manifest = artifact.manifest
    for name in ("bin", "lib", "include"):
        (folder / name).mkdir(parents=True)
    entries = [entry for level in levels for entry in level.entries()]
    kept = {name for entry in entries for name in (entry.library, entry.plan, kernels_file(entry.library))}
    dropped = {
        name
        for level in manifest.levels
        for entry in level.entries()
        for name in (entry.library, entry.plan, kernels_file(entry.library))
    } - kept
    if manifest.tvm_runtime is not None:
        dropped.add(manifest.tvm_runtime)
    files: dict[str, bytes | Path] = {
        name: artifact.path(name) for name in manifest.files if name not in dropped
    }
    alone = msgspec.structs.replace(manifest, levels=levels, tvm_runtime=None, files={})
    write_artifact(folder / "model", alone, files)
    shutil.copy(library, folder / "lib" / library.name)
    imports = library.with_suffix(".lib")  # what programs for Windows are linked with
    if imports.is_file():
        shutil.copy(imports, folder / "lib" / imports.name)
    placed = folder / "bin" / program.name
    shutil.copy(program, placed)
    placed.chmod(placed.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    for name in ("assay.h", "assay.hpp"):
        shutil.copy(SOURCES / name, folder / "include" / name)
    for name in ("assay_model.py", "example.cc"):
        shutil.copy(SOURCES / "loaders" / name, folder / name)


def _readme(manifest: Manifest, levels: tuple[Level, ...], platform: Platform) -> str:
    executed = {
        Execution.NATIVE: "Its outputs were compared with ONNX Runtime's on such a machine.",
        Execution.EMULATED: "Its outputs were compared with ONNX Runtime's under an emulator.",
        Execution.NEVER: "Its code was compiled and never executed.",
    }[levels[-1].executed]
    return _README.format(
        model=manifest.model.name,
        platform=platform.name,
        version=manifest.assay_version,
        executed=executed,
        program=platform.program_name,
        licence=manifest.model.licence,
    )


def _size(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
