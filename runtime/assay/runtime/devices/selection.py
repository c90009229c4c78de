"""Which device runs a level: one of its API, with the architecture and the features that its code needs."""

from __future__ import annotations

import os
from collections.abc import Collection

from assay.errors import DeviceError, UsageError
from assay.runtime.devices import device_apis
from assay.runtime.devices.device import DeviceInfo, Found

__all__ = ["DEVICE_VARIABLE", "choose_device", "fitting_device"]

DEVICE_VARIABLE = "ASSAY_DEVICE"
"""API:INDEX of the device to take, of the API's devices, where that is not the first that fits."""


def choose_device(api: str, *, architecture: str | None = None, features: Collection[str] = ()) -> DeviceInfo:
    """The device to run code on.

    Raises DeviceError, saying what each device lacks and what would help, where none fits.
    """
    found = fitting_device(api, architecture=architecture, features=features)
    if isinstance(found, DeviceInfo):
        return found
    remedy = _found(api).remedy
    raise DeviceError(f"No device here runs this code: {found}.", hint=remedy)


def fitting_device(
    api: str, *, architecture: str | None = None, features: Collection[str] = ()
) -> DeviceInfo | str:
    """The first device of ``api`` that fits, or why none does.

    ``architecture``: what code was made for, None where the device's driver compiles it.
    """
    if api not in device_apis():
        return f"this Assay has no driver for {api}"
    found = _found(api)
    wanted = _wanted(api)
    devices = [each for each in found.devices if wanted is None or each.index == wanted]
    if not devices:
        return found.reason or f"{api} has no device {wanted}"
    reasons = []
    for each in devices:
        missing = sorted(set(features) - each.features)
        if architecture is not None and each.architecture != architecture:
            reasons.append(f"{each.name} is {each.architecture}, not {architecture}")
        elif missing:
            reasons.append(f"{each.name} lacks {', '.join(missing)}")
        else:
            return each
    return "; ".join(reasons)


def _found(api: str) -> Found:
    return device_apis()[api].find()


def _wanted(api: str) -> int | None:
    """The index that the environment names for ``api``. Raises UsageError for nonsense."""
    value = os.environ.get(DEVICE_VARIABLE)
    if not value:
        return None
    name, _, index = value.partition(":")
    if name != api:
        return None
    if not index.isdecimal():
        raise UsageError(f"{DEVICE_VARIABLE} is {value!r}, which is not API:INDEX.")
    return int(index)
