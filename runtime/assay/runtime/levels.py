"""Which of an artifact's levels to run: the most capable one that the CPU has, or one that is asked for."""

from __future__ import annotations

import os

from assay.errors import CpuFeatureError, UnknownNameError
from assay.runtime import cpu as machine
from assay.runtime.cpu import Cpu, check_features, check_triple, missing_features
from assay.runtime.devices.device import DeviceInfo
from assay.runtime.devices.selection import choose_device, fitting_device
from assay.runtime.manifest import Level, Manifest

__all__ = ["LEVEL_VARIABLE", "choose_level", "device_of", "fits"]

LEVEL_VARIABLE = "ASSAY_LEVEL"


def choose_level(manifest: Manifest, name: str | None = None, cpu: Cpu | None = None) -> Level:
    """The level called ``name``, or the last one of ``manifest`` that ``cpu`` (this machine's) can run.

    Without ``name``, the environment variable ``ASSAY_LEVEL`` may give one. Raises UnknownNameError for a
    level that the artifact lacks, and CpuFeatureError, saying what each level needs, where none can run.
    """
    cpu = cpu or machine.detect_cpu()
    name = name or os.environ.get(LEVEL_VARIABLE) or None
    levels = manifest.levels
    if name is not None:
        named = [level for level in levels if level.target.name == name]
        if not named:
            raise UnknownNameError("level of this artifact", name, [level.target.name for level in levels])
        levels = tuple(named)
    # WebAssembly runs anywhere, and slower than the CPU's own code; a GPU is faster, unless the CPU plays it.
    portable = [level for level in levels if level.entry.driver == "wasm"]
    devices = [(level, info) for level in levels if isinstance(info := device_of(level), DeviceInfo)]
    played = [level for level, info in devices if info.emulated]
    fast = [level for level, info in devices if not info.emulated]
    fitting = [*played, *portable, *(level for level in levels if fits(level, cpu)), *fast]
    if fitting:
        return fitting[-1]
    if len(levels) == 1:
        _check_device(levels[0])
        check_triple(levels[0].target.triple, cpu)
        check_features(levels[0].target.features, cpu)
    raise CpuFeatureError(
        f"This CPU ({cpu.name}) can run none of the artifact's levels: {_reasons(manifest, cpu)}.",
        hint="Build it for a target that this CPU has: assay build MODEL --target native.",
    )


def fits(level: Level, cpu: Cpu | None = None) -> bool:
    """Whether ``cpu``, by default this machine's, can run the code of ``level``."""
    if level.target.api is not None:
        return False
    cpu = cpu or machine.detect_cpu()
    try:
        check_triple(level.target.triple, cpu)
    except CpuFeatureError:
        return False
    return not missing_features(level.target.features, cpu)


def device_of(level: Level) -> DeviceInfo | str | None:
    """The device that runs a level for a GPU, or why none does; None for a level for a CPU."""
    target = level.target
    if target.api is None:
        return None
    architecture = None if target.cpu == "any" else target.cpu
    return fitting_device(target.api, architecture=architecture, features=target.features)


def _check_device(level: Level) -> None:
    """Raise DeviceError for a level of a GPU that no device here runs."""
    if level.target.api is not None:
        architecture = None if level.target.cpu == "any" else level.target.cpu
        choose_device(level.target.api, architecture=architecture, features=level.target.features)


def _reasons(manifest: Manifest, cpu: Cpu) -> str:
    """What keeps each level from running, in words."""
    reasons = []
    for level in manifest.levels:
        if level.target.api is not None:
            reasons.append(f"{level.target.name}: {device_of(level)}")
            continue
        missing = missing_features(level.target.features, cpu)
        what = f"needs {', '.join(missing)}" if missing else f"is for {level.target.triple}"
        reasons.append(f"{level.target.name} {what}")
    return "; ".join(reasons)
