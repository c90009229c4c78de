"""A device without hardware, for tests: buffers are arrays, and kernels functions of Python, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices.device import Buffer, DeviceInfo, Launch

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.plan import Kernel

__all__ = ["NullBuffer", "NullDevice"]


class NullBuffer:
    """Memory of the device: bytes of an array, and whether they were given back."""

    def __init__(self, nbytes: int) -> None:
        self.data = np.zeros(nbytes, np.uint8)
        self.freed = False

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return int(self.data.nbytes)


@dataclass(frozen=True, kw_only=True)
class _Recording:
    device: NullDevice
    kernels: tuple[Kernel, ...]
    launches: tuple[Launch, ...]

    def run(self) -> None:
        for launch in self.launches:
            self.device.launch(self.kernels[launch.kernel], launch)

    def times(self) -> list[float]:
        self.run()
        return [0.0 for _ in self.launches]


class NullDevice:
    """A device whose kernels are ``functions`` by name, from arrays and integers to nothing.

    A kernel without a function does nothing. ``launched`` holds the names of the kernels in order.
    ``memory`` bytes can be allocated; after ``lose`` every call raises DeviceError.
    """

    def __init__(
        self, functions: Mapping[str, Callable[..., None]] | None = None, *, memory: int = 1 << 40
    ) -> None:
        self.info = DeviceInfo(api="null", index=0, name="null", total_memory=memory, emulated=True)
        self.launched: list[str] = []
        self.allocated = 0
        self._functions = dict(functions or {})
        self._memory = memory
        self._lost = False

    def lose(self) -> None:
        """From now on the device is lost."""
        self._lost = True

    def allocate(self, nbytes: int) -> NullBuffer:
        """Zeros."""
        self._check()
        if self.allocated + nbytes > self._memory:
            raise CapacityError(f"The device has {self._memory} bytes; {nbytes} more do not fit.")
        self.allocated += nbytes
        return NullBuffer(nbytes)

    def free(self, buffer: Buffer) -> None:
        """Note that the buffer was given back."""
        own = self._own(buffer)
        self.allocated -= own.nbytes
        own.freed = True

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy in."""
        self._own(buffer).data[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy out."""
        array.reshape(-1).view(np.uint8)[:] = self._own(buffer).data[: array.nbytes]

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> tuple[Kernel, ...]:
        """The kernels as they are; their files must be there."""
        self._check()
        for kernel in kernels:
            if kernel.file not in files:
                raise DeviceError(f"The kernel {kernel.name} has no file {kernel.file}.")
        return tuple(kernels)

    def record(self, program: tuple[Kernel, ...], launches: Sequence[Launch]) -> _Recording:
        """The launches as they are."""
        return _Recording(device=self, kernels=program, launches=tuple(launches))

    def launch(self, kernel: Kernel, launch: Launch) -> None:
        """Call the kernel's function with arrays of the dtypes of its parameters."""
        self._check()
        self.launched.append(kernel.name)
        values = [
            argument if isinstance(argument, int) else self._own(argument).data.view(parameter.dtype)
            for parameter, argument in zip(kernel.parameters, launch.arguments, strict=True)
        ]
        function = self._functions.get(kernel.name)
        if function is not None and all(launch.grid):
            function(*values)

    def synchronize(self) -> None:
        """Nothing runs that could be waited for."""
        self._check()

    def close(self) -> None:
        """Nothing is held."""

    def _own(self, buffer: Buffer) -> NullBuffer:
        self._check()
        if not isinstance(buffer, NullBuffer) or buffer.freed:
            raise DeviceError("The buffer is not of this device, or was given back.")
        return buffer

    def _check(self) -> None:
        if self._lost:
            raise DeviceError("The device was lost.")
