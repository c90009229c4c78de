"""Devices: one API, one file with an ``API``, one line in the registry."""

from __future__ import annotations

from functools import cache

from assay.errors import DeviceError
from assay.registry import Registry
from assay.runtime.devices.device import Device, DeviceApi, DeviceInfo, Found

__all__ = ["Device", "DeviceApi", "DeviceInfo", "Found", "device_apis", "find_devices", "open_device"]


@cache
def device_apis() -> Registry[DeviceApi]:
    """All APIs by name, in the order of preference, those of plug-ins last.

    A plug-in is an entry point of the group ``assay.devices`` that is a ``DeviceApi``.
    """
    # Imported here: most artifacts run on the CPU, and their processes need none of it.
    from importlib.metadata import entry_points

    from assay.runtime.devices import cuda, metal, opencl, rocm, vulkan, webgpu

    registry: Registry[DeviceApi] = Registry("device API")
    for module in (cuda, rocm, metal, vulkan, opencl, webgpu):
        registry.add(module.API.name, module.API)
    for entry in entry_points(group="assay.devices"):
        plugged = entry.load()
        registry.add(plugged.name, plugged)
    return registry


def find_devices() -> dict[str, Found]:
    """What each API finds on this machine."""
    return {name: api.find() for name, api in device_apis().items()}


def open_device(api: str, index: int = 0) -> Device:
    """The device of an API by its index.

    Raises UnknownNameError for an API that is not known, and DeviceError, saying why and what would help,
    where it has no such device.
    """
    chosen = device_apis()[api]
    found = chosen.find()
    if not found.devices:
        raise DeviceError(
            f"There is no {chosen.description} device: {found.reason or 'none was found'}.", hint=found.remedy
        )
    if index >= len(found.devices):
        names = ", ".join(f"{each.index} {each.name}" for each in found.devices)
        raise DeviceError(f"There is no {chosen.description} device {index}.", hint=f"Devices: {names}.")
    return chosen.open(index)
