"""Which device runs a level: one of its API, with the architecture, features and memory that it needs."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from assay.errors import CapacityError, DeviceError, UsageError
from assay.runtime.devices import device_apis
from assay.runtime.devices.device import DeviceInfo, Found

__all__ = ["AUTO", "CPU", "DEVICE_VARIABLE", "Wanted", "choose_device", "fitting_device", "parse_device"]

DEVICE_VARIABLE = "ASSAY_DEVICE"
"""API:INDEX of the device to take, of the API's devices, where that is not the first that fits."""
AUTO, CPU = "auto", "cpu"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A device that is asked for: an API, or ``cpu``, and the index of a device of the API, if any."""

    api: str
    index: int | None = None


def parse_device(text: str) -> Wanted | None:
    """What ``cpu``, ``API`` or ``API:INDEX`` asks for; None for ``auto``.

    Raises UnknownNameError for an API that this Assay has no driver for, and UsageError for nonsense.
    """
    name, colon, index = text.strip().partition(":")
    if name in (AUTO, CPU) and not colon:
        return None if name == AUTO else Wanted(api=CPU)
    if colon and not index.isdecimal():
        raise UsageError(f"{text!r} is no device.", hint=f"Write {AUTO}, {CPU}, API or API:INDEX.")
    return Wanted(api=device_apis().canonical_name(name), index=int(index) if colon else None)


def choose_device(
    api: str,
    *,
    architecture: str | None = None,
    features: Collection[str] = (),
    index: int | None = None,
    nbytes: int = 0,
) -> DeviceInfo:
    """The device to run code on; the arguments are those of ``fitting_device``.

    Raises DeviceError, saying what each device lacks and what would help, where none fits, and CapacityError
    where nothing but memory is missing.
    """
    found = fitting_device(api, architecture=architecture, features=features, index=index, nbytes=nbytes)
    if isinstance(found, DeviceInfo):
        return found
    if nbytes and isinstance(
        fitting_device(api, architecture=architecture, features=features, index=index), DeviceInfo
    ):
        raise CapacityError(f"No device here has the memory for this model: {found}.")
    remedy = _found(api).remedy if api in device_apis() else None
    raise DeviceError(f"No device here runs this code: {found}.", hint=remedy)


def fitting_device(
    api: str,
    *,
    architecture: str | None = None,
    features: Collection[str] = (),
    index: int | None = None,
    nbytes: int = 0,
) -> DeviceInfo | str:
    """The first device of ``api`` that fits, or why none does.

    ``architecture``: what code was made for, None where the device's driver compiles it. ``index``: of the
    device that is asked for, else the one that the environment names, if any. ``nbytes``: of memory that the
    model takes; a device that does not tell what it has free is taken to have enough.
    """
    if api not in device_apis():
        return f"this Assay has no driver for {api}"
    found = _found(api)
    wanted = _wanted(api) if index is None else index
    devices = [each for each in found.devices if wanted is None or each.index == wanted]
    if not devices:
        return found.reason or f"{api} has no device {wanted}"
    runs = device_apis()[api].runs
    reasons = []
    for each in devices:
        missing = sorted(set(features) - each.features)
        if architecture is not None and not runs(architecture, each.architecture or ""):
            reasons.append(f"{each.name} is {each.architecture}, not {architecture}")
        elif missing:
            reasons.append(f"{each.name} lacks {', '.join(missing)}")
        elif each.free_memory is not None and nbytes > each.free_memory:
            free, needed = (f"{count / 1e6:,.0f} MB" for count in (each.free_memory, nbytes))
            reasons.append(f"{each.name} has {free} free of the {needed} that the model takes")
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
