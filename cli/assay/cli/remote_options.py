"""What verbs share that use a device of another machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from assay.errors import RemoteDeviceError

if TYPE_CHECKING:
    from assay.runtime.remote.client import RemoteDevice

__all__ = ["best_target", "key_file_option", "open_remote", "remote_options"]

F = TypeVar("F", bound=Callable[..., Any])

key_file_option = click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the key that the device's server was started with; `assay device key` makes one.",
)


def remote_options(function: F) -> F:
    """``--device``, ``--key-file`` and ``--wait``."""
    for option in (
        click.option(
            "--wait",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            metavar="SECONDS",
            help="With --device: how long to wait for a device that somebody else uses.",
        ),
        key_file_option,
        click.option(
            "--device",
            metavar="NAME|HOST:PORT|NAME@TRACKER:PORT",
            help="Measure on a device of another machine, on which `assay device serve` runs.",
        ),
    ):
        function = option(function)
    return function


def open_remote(name: str, key_file: Path | None, wait: float) -> RemoteDevice:
    """A session on the device that ``name`` means.

    Raises RemoteDeviceError, also where it cannot run the target that the devices file promises, UsageError
    and UnknownNameError.
    """
    from assay.compile.targets import find_target
    from assay.runtime.cpu import canonical_machine, missing_features
    from assay.runtime.remote.names import find_device, open_device

    entry = find_device(name, key_file)
    target = find_target(entry.target) if entry.target else None
    device = open_device(entry, wait=wait)
    if target is not None:
        machine = canonical_machine(target.triple.partition("-")[0])
        missing = missing_features(target.features, device.cpu)
        if machine != device.cpu.machine or missing:
            device.close()
            same = machine == device.cpu.machine
            lacks = f"lacks {', '.join(missing)}" if same else f"is {device.cpu.machine}"
            raise RemoteDeviceError(
                f"{device.address} {lacks}; the devices file says that it runs {target.name}.",
                hint="Correct the file, or look which device answers there.",
            )
    return device


def best_target(device: RemoteDevice) -> str:
    """The most capable target that the device's CPU runs. Raises CpuFeatureError where none fits."""
    from assay.compile.targets import targets
    from assay.compile.targets.native import native_target

    return native_target(targets().values(), device.cpu).name
