"""Whether this machine has a device that runs code for a GPU target."""

from __future__ import annotations

from assay.compile.targets.gpu_target import GpuTarget
from assay.runtime.devices.device import DeviceInfo
from assay.runtime.devices.selection import fitting_device

__all__ = ["device_note", "is_emulated", "why_not_on_device"]


def _device(target: GpuTarget) -> DeviceInfo | str:
    return fitting_device(target.api.value, architecture=target.architecture)


def why_not_on_device(target: GpuTarget) -> str | None:
    """Why no device here runs code for ``target``; None where one does."""
    found = _device(target)
    return found if isinstance(found, str) else None


def is_emulated(target: GpuTarget) -> bool:
    """Whether the device that runs code for ``target`` is played by the CPU."""
    found = _device(target)
    return isinstance(found, DeviceInfo) and found.emulated


def device_note(target: GpuTarget) -> str:
    """What ran the code for ``target``, or that nothing did, for the manifest."""
    found = _device(target)
    if isinstance(found, str):
        return f"Compiled, never executed: {found}."
    how = "Executed by the CPU in the place of a GPU" if found.emulated else "Executed"
    return f"{how}: {found.name}, {found.driver or found.version}."
