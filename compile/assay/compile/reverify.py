"""Verifying an artifact that exists: the levels that this machine has, and others under an emulator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from assay.compile.cache import BuildCache
from assay.compile.decoders.interface import DecoderOptions, options_of
from assay.compile.decoders.verification import cases_with_tolerance
from assay.compile.emulation.user_mode import UserMode, emulator_note, find_user_mode
from assay.compile.native.platforms import for_platform, platform_of
from assay.compile.origin import model_of
from assay.compile.targets import targets
from assay.compile.targets.target import Launcher
from assay.compile.verify import Case, compare_outputs, reference_version, verify_artifact
from assay.errors import CpuFeatureError
from assay.models.export import CanonicalModel
from assay.models.spec import ModelSpec, Tolerance
from assay.progress import Progress, SilentProgress
from assay.runtime.artifact import Artifact, open_artifact, write_artifact
from assay.runtime.cpu import canonical_feature
from assay.runtime.devices.device import DeviceInfo
from assay.runtime.drivers.wasm_module import wasm_engine
from assay.runtime.levels import choose_level, device_of, fits
from assay.runtime.manifest import Execution, Level, Manifest, Verification, VerifiedCase

__all__ = ["user_mode_of", "verify_again", "verify_emulated"]


def verify_again(
    path: Path,
    spec: ModelSpec,
    *,
    level: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, list[VerifiedCase]]:
    """Compare an existing artifact with ONNX Runtime on the model that it was built from.

    Every level is compared that runs here: on this machine's CPU, on a device, or under what executes the
    code of another machine (QEMU's user mode, Wine); or ``level`` alone. The result is by level. Raises
    ArtifactError where the artifact is of another model, VerificationError where it is wrong, and
    CpuFeatureError or DeviceError where this machine can run none of it.
    """
    progress = progress or SilentProgress()
    artifact = open_artifact(path)
    manifest = artifact.manifest
    canonical = model_of(path, manifest, spec, BuildCache(cache), progress)
    named = [each for each in manifest.levels if level in (None, each.target.name)]
    emulators = {each.target.name: user_mode_of(each) for each in named}
    levels = [each for each in named if emulators[each.target.name] or _runs_here(each, manifest)]
    if not levels:
        levels = [choose_level(manifest, level)]  # says why
    cases, tolerance = _cases(canonical, manifest, levels, progress)
    found = {}
    with _as_folder(artifact) as folder:
        for name in (each.target.name for each in levels):
            emulator = emulators[name]
            under = f" under {emulator.description}" if emulator is not None else ""
            with progress.step(f"verify {name}{under}" if under or len(manifest.levels) > 1 else "verify"):
                if emulator is None:
                    found[name] = verify_artifact(path, cases, tolerance, level=name)
                else:
                    outputs = emulator.run(folder, cases, level=name)
                    found[name] = compare_outputs(outputs, cases, tolerance)
    return found


def _runs_here(level: Level, manifest: Manifest) -> bool:
    """Whether the runtime can run a level in this process: on the CPU, a device, or in wasmtime."""
    if level.entry.driver == Launcher.WASM:
        return wasm_engine() is not None
    return fits(level) or isinstance(device_of(level, manifest), DeviceInfo)


def user_mode_of(level: Level) -> UserMode | None:
    """What executes the code of a level for another machine or system, where it is installed."""
    info = level.target
    if info.name not in targets() or level.entry.driver != Launcher.PLAN or fits(level):
        return None
    target, platform = targets()[info.name], platform_of(info.triple)
    if target.triple != info.triple and platform is not None:
        target = for_platform(target, platform)
    return find_user_mode(target)


def verify_emulated(
    path: Path,
    spec: ModelSpec,
    *,
    level: str | None = None,
    timeout: float,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, list[VerifiedCase]]:
    """Run levels of an artifact under an emulator, compare them, and note that in the artifact.

    These are the levels that no machine has run yet and that an emulator has, or ``level`` alone; the result
    is by level. Levels for this kind of machine run in an emulated one, for at most ``timeout`` seconds each,
    others under QEMU's user mode or Wine. Raises what ``verify_again`` does, and EmulatorError;
    then the artifact stays as it was.
    """
    from assay.compile.emulation import describe_emulator, run_emulated

    progress = progress or SilentProgress()
    artifact = open_artifact(path)
    canonical = model_of(path, artifact.manifest, spec, BuildCache(cache), progress)
    chosen = _levels_to_emulate(artifact.manifest, level)
    cases, tolerance = _cases(canonical, artifact.manifest, chosen, progress, few=True)
    lacking = f"Executed under {describe_emulator()}: the machine lacks the target's instructions."
    found: dict[str, list[VerifiedCase]] = {}
    notes: dict[str, str] = {}
    with _as_folder(artifact) as folder:
        for each in chosen:
            name, emulator = each.target.name, user_mode_of(each)
            with progress.step(f"run {name} in an emulated machine"):
                if emulator is None:
                    outputs = run_emulated(folder, cases, level=name, timeout=timeout)
                    notes[name] = lacking
                else:
                    outputs = emulator.run(folder, cases, level=name)
                    notes[name] = emulator_note(emulator.description)
            found[name] = compare_outputs(outputs, cases, tolerance)
    _note(artifact, found, notes)
    return found


def _levels_to_emulate(manifest: Manifest, name: str | None) -> list[Level]:
    from assay.compile.emulation import FEATURES

    able = frozenset(map(canonical_feature, FEATURES))

    def emulable(level: Level) -> bool:
        if platform_of(level.target.triple) != platform_of("x86_64-linux-gnu"):
            return user_mode_of(level) is not None
        return able.issuperset(map(canonical_feature, level.target.features))

    if name is None:
        chosen = [
            each for each in manifest.levels if each.executed is not Execution.NATIVE and emulable(each)
        ]
    else:
        chosen = [each for each in manifest.levels if each.target.name == name and emulable(each)]
    if not chosen:
        what = f"level {name!r}" if name else "level left"
        raise CpuFeatureError(
            f"The artifact has no {what} that the emulated machine can run.",
            hint="`assay inspect` shows the levels and what each needs.",
        )
    return chosen


def _cases(
    canonical: CanonicalModel,
    manifest: Manifest,
    levels: Sequence[Level],
    progress: Progress,
    *,
    few: bool = False,
) -> tuple[list[Case], Tolerance]:
    """Inputs and expected outputs, at the sizes too that the levels have code of their own for."""
    sizes = [each.sizes for level in levels for each in level.specializations]
    options = DecoderOptions() if manifest.decoder is None else options_of(manifest.decoder)
    with progress.step("run ONNX Runtime"):
        return cases_with_tolerance(canonical, options, sizes, few=few)


@contextmanager
def _as_folder(artifact: Artifact) -> Iterator[Path]:
    """The artifact as a directory, also where it is one file."""
    if not artifact.packed:
        yield artifact.location
        return
    with tempfile.TemporaryDirectory(prefix="assay-unpacked-") as name:
        files = {each: artifact.read(each) for each in artifact.manifest.files}
        yield write_artifact(Path(name) / "artifact", artifact.manifest, files)


def _note(artifact: Artifact, found: dict[str, list[VerifiedCase]], notes: dict[str, str]) -> None:
    """Write the artifact again with what was found, in one step."""
    levels = tuple(
        msgspec.structs.replace(
            level,
            executed=Execution.EMULATED,
            verification=Verification(
                reference=reference_version(),
                note=notes[level.target.name],
                cases=tuple(found[level.target.name]),
            ),
        )
        if level.target.name in found and level.executed is not Execution.NATIVE
        else level
        for level in artifact.manifest.levels
    )
    manifest = msgspec.structs.replace(artifact.manifest, levels=levels)
    files = {name: artifact.read(name) for name in artifact.manifest.files}
    write_artifact(artifact.location, manifest, files, packed=artifact.packed)
