"""Which of an artifact's levels to run, and where: the best that this machine has, or what is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from assay.errors import CpuFeatureError, DeviceError, UnknownNameError
from assay.runtime import cpu as machine
from assay.runtime.cpu import Cpu, check_features, check_triple, missing_features
from assay.runtime.manifest import Level, Manifest

# `assay.runtime.devices` is imported where a device is asked for or has code: most processes need none of it.
if TYPE_CHECKING:
    from assay.runtime.devices.device import DeviceInfo
    from assay.runtime.devices.selection import Wanted

__all__ = ["LEVEL_VARIABLE", "Choice", "choose", "choose_level", "device_bytes", "device_of", "fits"]

LEVEL_VARIABLE = "ASSAY_LEVEL"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The level to run, the device for it (None: the CPU), and why devices before it were passed over."""

    level: Level
    device: DeviceInfo | None = None
    passed_over: tuple[str, ...] = ()


def choose_level(manifest: Manifest, name: str | None = None, cpu: Cpu | None = None) -> Level:
    """The level that ``choose`` takes."""
    return choose(manifest, name, cpu=cpu).level


def choose(
    manifest: Manifest, name: str | None = None, device: str | None = None, *, cpu: Cpu | None = None
) -> Choice:
    """The level called ``name``, or the best one of ``manifest`` that this machine can run.

    Devices come first, in the order of ``device_apis``, then ``cpu`` (this machine's) with the last level
    that it has, then devices that the CPU plays. ``device`` names one, which is taken or refused, never
    replaced: ``cpu``, an API, or ``API:INDEX``; ``auto`` is as None. Without ``name``, the environment
    variable ``ASSAY_LEVEL`` may give one.

    Raises UnknownNameError for a level that the artifact lacks or an unknown API; where none can run,
    CpuFeatureError, saying what each level needs; DeviceError and CapacityError for a device that is asked
    for and cannot run the model.
    """
    cpu = cpu or machine.detect_cpu()
    name = name or os.environ.get(LEVEL_VARIABLE) or None
    levels = manifest.levels
    if name is not None:
        named = [level for level in levels if level.target.name == name]
        if not named:
            raise UnknownNameError("level of this artifact", name, [level.target.name for level in levels])
        levels = tuple(named)
    wanted = None
    if device is not None:
        from assay.runtime.devices.selection import CPU, parse_device

        wanted = parse_device(device)
        if wanted is not None and wanted.api != CPU:
            return _on_device(manifest, levels, wanted)
        if wanted is not None:
            levels = _for_cpus(levels)
    found = {} if wanted is not None else {level.target.name: device_of(level, manifest) for level in levels}
    choices = [
        Choice(level=level, device=info)
        for level in levels
        if (info := found.get(level.target.name)) is not None and not isinstance(info, str)
    ]
    if choices:  # else there is no need to look for plug-ins
        from assay.runtime.devices import device_apis

        order = list(device_apis())
        # Within an API, the last level is the most capable.
        choices.sort(key=lambda choice: order.index(choice.level.target.api or ""), reverse=True)
    # WebAssembly runs anywhere, and slower than the CPU's own code; a GPU is faster, unless the CPU plays it.
    played = [choice for choice in choices if choice.device is not None and choice.device.emulated]
    fast = [choice for choice in choices if choice.device is not None and not choice.device.emulated]
    portable = [Choice(level=level) for level in levels if level.entry.driver == "wasm"]
    plain = [Choice(level=level) for level in levels if fits(level, cpu)]
    fitting = [*played, *portable, *plain, *fast]
    if fitting:
        reasons = tuple(f"{level}: {why}" for level, why in found.items() if isinstance(why, str))
        return replace(fitting[-1], passed_over=reasons)
    if len(levels) == 1:
        _check_device(levels[0], manifest)
        check_triple(levels[0].target.triple, cpu)
        check_features(levels[0].target.features, cpu)
    raise CpuFeatureError(
        f"This CPU ({cpu.name}) can run none of the artifact's levels: {_reasons(manifest, cpu)}.",
        hint="Build it for a target that this CPU has: assay build MODEL --target native.",
    )


def _for_cpus(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    found = tuple(level for level in levels if level.target.api is None)
    if not found:
        names = ", ".join(level.target.name for level in levels)
        raise DeviceError("The artifact has no code for a CPU.", hint=f"Its levels: {names}.")
    return found


def _on_device(manifest: Manifest, levels: tuple[Level, ...], wanted: Wanted) -> Choice:
    """The last level that the wanted device runs. Raises DeviceError or CapacityError where it runs none."""
    own = [level for level in levels if level.target.api == wanted.api]
    if not own:
        raise DeviceError(
            f"The artifact has no code for {wanted.api}.",
            hint=f"Its levels: {', '.join(level.target.name for level in levels)}.",
        )
    for level in reversed(own):
        info = device_of(level, manifest, index=wanted.index)
        if info is not None and not isinstance(info, str):
            return Choice(level=level, device=info)
    _check_device(own[-1], manifest, index=wanted.index)
    raise AssertionError("a device that was refused is there")


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


def device_of(level: Level, manifest: Manifest, *, index: int | None = None) -> DeviceInfo | str | None:
    """The device that runs a level for a GPU, or why none does; None for a level for a CPU."""
    if level.target.api is None:
        return None
    from assay.runtime.devices.selection import fitting_device

    return fitting_device(level.target.api, index=index, **_needs(level, manifest))


def device_bytes(level: Level, manifest: Manifest) -> int:
    """Memory that a level takes on a device, at most: its weights and intermediate results."""
    sizes = {weight.name: weight.bytes for weight in manifest.weights}
    workspace = level.workspace.maximum_bytes if level.workspace is not None else 0
    return workspace + sum(sizes.get(name, 0) for name in level.entry.weights)


def _needs(level: Level, manifest: Manifest) -> _Needs:
    target = level.target
    return {
        "architecture": None if target.cpu == "any" else target.cpu,
        "features": target.features,
        "nbytes": device_bytes(level, manifest),
    }


class _Needs(TypedDict):
    architecture: str | None
    features: tuple[str, ...]
    nbytes: int


def _check_device(level: Level, manifest: Manifest, *, index: int | None = None) -> None:
    """Raise DeviceError or CapacityError for a level of a GPU that no device here runs."""
    if level.target.api is not None:
        from assay.runtime.devices.selection import choose_device

        choose_device(level.target.api, index=index, **_needs(level, manifest))


def _reasons(manifest: Manifest, cpu: Cpu) -> str:
    """What keeps each level from running, in words."""
    reasons = []
    for level in manifest.levels:
        if level.target.api is not None:
            reasons.append(f"{level.target.name}: {device_of(level, manifest)}")
            continue
        missing = missing_features(level.target.features, cpu)
        what = f"needs {', '.join(missing)}" if missing else f"is for {level.target.triple}"
        reasons.append(f"{level.target.name} {what}")
    return "; ".join(reasons)
