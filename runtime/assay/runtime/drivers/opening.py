"""From the entry of a level to the driver that executes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from assay.errors import ArtifactError
from assay.registry import Registry

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.artifact import Artifact
    from assay.runtime.devices.device import DeviceInfo
    from assay.runtime.manifest import Entry

__all__ = ["Driver", "drivers", "open_driver"]


class Driver(Protocol):
    """What executes the code of a level."""

    def call(
        self,
        arrays: Sequence[npt.NDArray[Any]],
        threads: int,
        instrument: Callable[..., None] | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays`` in the order of the manifest; see ``TvmVm.call``."""
        ...

    def is_weight(self, tensor: Any) -> bool:
        """Whether a tensor that ``instrument`` was given lies in the memory of the weights."""
        ...


def _tvm_vm(artifact: Artifact, entry: Entry) -> Driver:
    from assay.runtime.drivers.tvm_vm import TvmVm

    return TvmVm(artifact, entry)


def _wasm(artifact: Artifact, entry: Entry) -> Driver:
    from assay.runtime.drivers.wasm import Wasm

    return Wasm(artifact, entry)


def _plan_cpu(artifact: Artifact, entry: Entry) -> Driver:
    from assay.runtime.drivers.plan_cpu import PlanOnCpu

    return PlanOnCpu(artifact, entry)


def _device(artifact: Artifact, entry: Entry, device: DeviceInfo | None = None) -> Driver:
    from assay.runtime.drivers.plan_device import PlanOnDevice

    return PlanOnDevice(artifact, entry, device)


@cache
def drivers() -> Registry[Callable[[Artifact, Entry], Driver]]:
    """What opens a driver, by the name that entries have for it."""
    registry: Registry[Callable[[Artifact, Entry], Driver]] = Registry("driver")
    registry.add("tvm-vm", _tvm_vm)
    registry.add("plan-cpu", _plan_cpu)
    registry.add("wasm", _wasm)
    registry.add("device", _device)
    return registry


def open_driver(artifact: Artifact, entry: Entry, device: DeviceInfo | None = None) -> Driver:
    """The driver that ``entry`` names, on ``device`` where it is one for devices.

    Raises ArtifactError for one that this Assay lacks, and its own.
    """
    if entry.driver not in drivers():
        raise ArtifactError(
            f"The code of this level is for the driver {entry.driver!r}, which this Assay does not have.",
            hint=f"Drivers: {', '.join(drivers())}. Upgrade Assay, or name another level.",
        )
    if device is not None:
        return _device(artifact, entry, device)
    return drivers()[entry.driver](artifact, entry)
