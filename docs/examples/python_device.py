"""A driver of a package of its own: a device whose kernels are functions in a file of Python.

A kernel takes NumPy arrays for its buffers, integers for its scalars, and the number of threads of a launch.
The package declares the API in its ``pyproject.toml``, and Assay finds it::

    [project.entry-points."assay.devices"]
    python = "python_device:API"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import Any

import numpy as np

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices import DeviceApi, DeviceInfo, Found
from assay.runtime.devices.device import Buffer, Launch
from assay.runtime.plan import Kernel

MEMORY = 1 << 30
INFO = DeviceInfo(
    api="python", index=0, name="Python", total_memory=MEMORY, unified_memory=True,
    features=frozenset({"f16", "f64", "int64", "timestamps"}), emulated=True,
)  # fmt: skip


@dataclass
class Memory:
    """A buffer: bytes on the host."""

    data: np.ndarray[Any, Any]

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)


@dataclass
class Program:
    """Compiled kernels: here, functions of Python, in the order of the plan."""

    kernels: Sequence[Kernel]
    functions: Sequence[Callable[..., None]]


@dataclass
class Recording:
    """Launches with their arguments, made ready once and run many times."""

    calls: list[Callable[[], None]] = field(default_factory=list)

    def run(self) -> None:
        for call in self.calls:
            call()

    def times(self) -> list[float]:
        seconds = []
        for call in self.calls:
            start = perf_counter()
            call()
            seconds.append(perf_counter() - start)
        return seconds


class PythonDevice:
    """Everything that `assay.runtime.devices.device.Device` asks for."""

    info = INFO

    def __init__(self) -> None:
        self.free_bytes = MEMORY

    def allocate(self, nbytes: int) -> Memory:
        if nbytes > self.free_bytes:
            raise CapacityError(f"The device has {self.free_bytes} bytes left, not {nbytes}.")
        self.free_bytes -= nbytes
        return Memory(np.empty(nbytes, np.uint8))

    def free(self, buffer: Buffer) -> None:
        self.free_bytes += buffer.nbytes

    def upload(self, buffer: Buffer, array: np.ndarray[Any, Any]) -> None:
        memory(buffer)[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def download(self, buffer: Buffer, array: np.ndarray[Any, Any]) -> None:
        array.reshape(-1).view(np.uint8)[:] = memory(buffer)[: array.nbytes]

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> Program:
        found: dict[str, Any] = {}
        for name in {kernel.file for kernel in kernels if kernel.file is not None}:
            exec(compile(files[name], name, "exec"), found)
        missing = [kernel.name for kernel in kernels if kernel.name not in found]
        if missing:
            raise DeviceError(f"There is no kernel {missing[0]}.")
        return Program(kernels, [found[kernel.name] for kernel in kernels])

    def record(self, program: Program, launches: Sequence[Launch]) -> Recording:
        return Recording([ready(program, launch) for launch in launches])

    def synchronize(self) -> None:
        """Nothing runs on when a launch returns."""

    def close(self) -> None:
        """Nothing is held."""


def memory(buffer: Buffer) -> np.ndarray[Any, Any]:
    if not isinstance(buffer, Memory):
        raise DeviceError("The buffer is not of this device.")
    return buffer.data


def ready(program: Program, launch: Launch) -> Callable[[], None]:
    kernel = program.kernels[launch.kernel]
    values = [
        argument if isinstance(argument, int) else memory(argument).view(parameter.dtype)
        for parameter, argument in zip(kernel.parameters, launch.arguments, strict=True)
    ]
    threads = prod(launch.grid) * prod(kernel.threads or (1, 1, 1))
    return lambda: program.functions[launch.kernel](*values, threads) if threads else None


API = DeviceApi(
    name="python", description="Python", find=lambda: Found(devices=(INFO,)), open=lambda _: PythonDevice()
)
