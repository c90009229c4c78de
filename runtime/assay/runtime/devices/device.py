"""What a device is to the drivers: memory, kernels, launches. One file an API implements it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from assay.errors import CapacityError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.plan import Kernel

__all__ = [
    "Buffer",
    "Device",
    "DeviceApi",
    "DeviceInfo",
    "Found",
    "Launch",
    "Program",
    "Recording",
    "check_buffer",
]

Program: TypeAlias = Any
"""Compiled kernels, as the device that compiled them knows them."""


@dataclass(frozen=True, kw_only=True)
class DeviceInfo:
    """One device of an API; None where the API does not tell.

    ``index`` counts the devices of the API. ``architecture``: such as ``sm_90`` or ``gfx942``. ``version``:
    of the API that the device has; ``driver``: name and version of what drives it. Memory is in bytes.
    ``max_threads``: of one block; ``shared_memory_bytes``: what they share. ``features``: what kernels may
    need, by name: ``f16``, ``f64``, ``int64``, ``subgroups``, ``timestamps``. ``emulated``: whether the CPU
    plays the device.
    """

    api: str
    index: int
    name: str
    architecture: str | None = None
    version: str | None = None
    driver: str | None = None
    total_memory: int | None = None
    free_memory: int | None = None
    largest_buffer: int | None = None
    unified_memory: bool | None = None
    max_threads: int | None = None
    shared_memory_bytes: int | None = None
    features: frozenset[str] = frozenset()
    emulated: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """The devices of one API; where there is none, why, and what would help."""

    devices: tuple[DeviceInfo, ...] = ()
    reason: str | None = None
    remedy: str | None = None


def check_buffer(info: DeviceInfo, nbytes: int) -> None:
    """Raise CapacityError where a buffer of ``nbytes`` is larger than the device has."""
    if info.largest_buffer is not None and nbytes > info.largest_buffer:
        raise CapacityError(
            f"{info.name} has no buffers of {nbytes} bytes; its largest has {info.largest_buffer}."
        )


class Buffer(Protocol):
    """Memory of a device, of ``nbytes``; freed by ``Device.free``, or with the device."""

    @property
    def nbytes(self) -> int:
        """Bytes of the memory."""
        ...


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch of kernel number ``kernel`` of a program.

    ``arguments``: buffers, and integers for scalars, in the order of the kernel's parameters. ``grid``:
    groups in x, y and z; none are launched where one of them is 0.
    """

    kernel: int
    arguments: tuple[Buffer | int, ...] = field(repr=False)
    grid: tuple[int, int, int]


class Recording(Protocol):
    """Launches that were made ready once and run in order many times."""

    def run(self) -> None:
        """Start all launches; returns maybe before they ended. Raises DeviceError."""

    def times(self) -> list[float]:
        """Run all launches, one after the other, and give the seconds of each. Raises DeviceError."""


class Device(Protocol):
    """An open device. Calls come from one thread at a time.

    Whatever an API raises becomes DeviceError with one sentence, a lack of memory CapacityError. After a
    device was lost, every call raises DeviceError.
    """

    @property
    def info(self) -> DeviceInfo:
        """What the device is."""
        ...

    def allocate(self, nbytes: int) -> Buffer:
        """Memory whose content is arbitrary. Raises CapacityError where the device has no room."""
        ...

    def free(self, buffer: Buffer) -> None:
        """Give memory back; launches that still use it finish first."""

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy a contiguous array to the start of ``buffer``; it may be changed when this returns.

        Its bytes are a multiple of 4, as are those of ``download``'s array and of all buffers.
        """

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy the start of ``buffer`` into a contiguous array, when all launches so far have ended."""

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> Program:
        """The kernels of a plan from the source or code in ``files`` by name.

        Raises DeviceError with the compiler's message, shortened, where the device refuses them.
        """
        ...

    def record(self, program: Program, launches: Sequence[Launch]) -> Recording:
        """Make launches ready. Each sees what those before it wrote."""
        ...

    def synchronize(self) -> None:
        """Wait until all launches have ended. Raises DeviceError where one failed."""

    def close(self) -> None:
        """Give everything back. Nothing may be called after this."""


@dataclass(frozen=True, kw_only=True)
class DeviceApi:
    """One API: ``find`` looks for devices, and never raises; ``open`` opens the one of that index.

    Both import what they need inside. ``open`` raises DeviceError where there is no such device. ``runs``
    says whether code for one architecture runs on a device of another.
    """

    name: str
    description: str
    find: Callable[[], Found]
    open: Callable[[int], Device]
    runs: Callable[[str, str], bool] = operator.eq
