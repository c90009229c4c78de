"""OpenCL devices, through pyopencl: GPUs of every maker, and CPUs through PoCL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices.device import (
    Buffer,
    Device,
    DeviceApi,
    DeviceInfo,
    Found,
    Launch,
    check_buffer,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.plan import Kernel

__all__ = ["API"]

_LONGEST_LOG = 600
_SCALARS: Mapping[str, type[np.generic]] = {"int32": np.int32, "uint32": np.uint32, "int64": np.int64}
_FEATURES = {"cl_khr_fp16": "f16", "cl_khr_fp64": "f64", "cl_khr_subgroups": "subgroups"}


def _find() -> Found:
    try:
        import pyopencl
    except ImportError:
        return Found(
            reason="the package pyopencl is not installed", remedy="Install it: pip install 'assay[opencl]'."
        )
    try:
        devices = _devices(pyopencl)
    except pyopencl.Error as error:
        return Found(
            reason=f"no OpenCL driver is installed ({_first_line(error)})",
            remedy="Install the driver of the GPU, or PoCL for the CPU: apt install pocl-opencl-icd.",
        )
    if not devices:
        return Found(reason="the OpenCL drivers that are installed find no device")
    return Found(devices=tuple(_info(pyopencl, i, device) for i, device in enumerate(devices)))


def _devices(cl: Any) -> list[Any]:
    """All devices, those that are no CPU first."""
    found = []
    for platform in cl.get_platforms():
        try:
            found += platform.get_devices()
        except cl.Error:  # a driver without a device says so with an error
            continue
    return sorted(found, key=lambda device: bool(device.type & cl.device_type.CPU))


def _info(cl: Any, index: int, device: Any) -> DeviceInfo:
    extensions = set(device.extensions.split())
    return DeviceInfo(
        api=API.name,
        index=index,
        name=device.name.strip(),
        version=device.version.strip(),
        driver=f"{device.platform.name.strip()} {device.driver_version.strip()}",
        total_memory=int(device.global_mem_size),
        largest_buffer=int(device.max_mem_alloc_size),
        unified_memory=bool(device.host_unified_memory),
        max_threads=int(device.max_work_group_size),
        shared_memory_bytes=int(device.local_mem_size),
        features=frozenset(
            {
                "int64",
                "timestamps",
                *(name for extension, name in _FEATURES.items() if extension in extensions),
            }
        ),
        emulated=bool(device.type & cl.device_type.CPU),
    )


def _open(index: int) -> Device:
    import pyopencl

    with _errors(pyopencl):
        devices = _devices(pyopencl)
        if index >= len(devices):
            raise DeviceError(f"There is no OpenCL device {index}.")
        return OpenClDevice(pyopencl, devices[index], _info(pyopencl, index, devices[index]))


@contextmanager
def _errors(cl: Any) -> Iterator[None]:
    """What pyopencl raises as one sentence."""
    try:
        yield
    except cl.MemoryError as error:
        raise CapacityError(f"The OpenCL device has no room: {_first_line(error)}.") from error
    except cl.Error as error:
        raise DeviceError(f"The OpenCL device failed: {_first_line(error)}.") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """A buffer of OpenCL."""

    memory: Any
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class _Program:
    """Kernels in the order of the plan, each as the object that OpenCL has and its description."""

    built: tuple[Any, ...]
    kernels: tuple[Kernel, ...]


class OpenClDevice:
    """One device with a context and a queue, which keeps its launches in order."""

    def __init__(self, cl: Any, device: Any, info: DeviceInfo) -> None:
        self._cl, self._device, self._info = cl, device, info
        self._context = cl.Context([device])
        self._queue = cl.CommandQueue(self._context, device)
        self._timed: Any = None

    @property
    def info(self) -> DeviceInfo:
        """What the device is."""
        return self._info

    def allocate(self, nbytes: int) -> _Memory:
        """Memory that kernels may read and write."""
        check_buffer(self._info, nbytes)
        with _errors(self._cl):
            memory = self._cl.Buffer(self._context, self._cl.mem_flags.READ_WRITE, max(1, nbytes))
        return _Memory(memory=memory, nbytes=nbytes)

    def free(self, buffer: Buffer) -> None:
        """Give memory back; OpenCL keeps it while a launch uses it."""
        with _errors(self._cl):
            _memory(buffer).release()

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy in."""
        if array.nbytes:
            with _errors(self._cl):
                self._cl.enqueue_copy(self._queue, _memory(buffer), array, is_blocking=True)

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy out, behind all launches."""
        if array.nbytes:
            with _errors(self._cl):
                self._cl.enqueue_copy(self._queue, array, _memory(buffer), is_blocking=True)

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> _Program:
        """Build the source files, each once."""
        built: dict[str, Any] = {}
        objects = []
        for kernel in kernels:
            name = kernel.file or ""
            if name not in built:
                if name not in files:
                    raise DeviceError(f"The kernel {kernel.name} has no file {name}.")
                built[name] = self._build(name, files[name])
            with _errors(self._cl):
                objects.append(self._cl.Kernel(built[name], kernel.name))
            self._check_threads(kernel, objects[-1])
        return _Program(built=tuple(objects), kernels=tuple(kernels))

    def _build(self, name: str, source: bytes) -> Any:
        try:
            # Without a cache: it lies where others may write.
            return self._cl.Program(self._context, source.decode()).build(cache_dir=False)
        except self._cl.RuntimeError as error:
            log = " ".join(str(error).split())
            raise DeviceError(f"{self._info.name} cannot build {name}: {log[:_LONGEST_LOG]}") from error

    def _check_threads(self, kernel: Kernel, built: Any) -> None:
        threads = int(np.prod(kernel.threads or (1, 1, 1)))
        with _errors(self._cl):
            most = built.get_work_group_info(self._cl.kernel_work_group_info.WORK_GROUP_SIZE, self._device)
        if threads > most:
            raise DeviceError(
                f"The kernel {kernel.name} has groups of {threads} threads; {self._info.name} runs {most}."
            )

    def record(self, program: _Program, launches: Sequence[Launch]) -> _Recording:
        """Arguments in OpenCL's types; a kernel object is made for each launch, which keeps them set."""
        ready = []
        for launch in launches:
            if not all(launch.grid):
                continue
            described = program.kernels[launch.kernel]
            threads = described.threads or (1, 1, 1)
            with _errors(self._cl):
                kernel = self._cl.Kernel(program.built[launch.kernel].program, described.name)
                kernel.set_args(*_arguments(described, launch))
            sizes = tuple(groups * each for groups, each in zip(launch.grid, threads, strict=True))
            ready.append((kernel, sizes, threads))
        return _Recording(
            device=self,
            launches=ready,
            positions=[i for i, each in enumerate(launches) if all(each.grid)],
            count=len(launches),
        )

    def enqueue(
        self, kernel: Any, sizes: tuple[int, ...], threads: tuple[int, ...], *, timed: bool = False
    ) -> Any:
        """Start one launch; its event."""
        with _errors(self._cl):
            return self._cl.enqueue_nd_range_kernel(
                self._timed_queue() if timed else self._queue, kernel, sizes, threads
            )

    def _timed_queue(self) -> Any:
        """A queue that takes times, which costs."""
        if self._timed is None:
            profiling = self._cl.command_queue_properties.PROFILING_ENABLE
            self._timed = self._cl.CommandQueue(self._context, self._device, properties=profiling)
        return self._timed

    def flush(self) -> None:
        """Let what was started begin."""
        with _errors(self._cl):
            self._queue.flush()

    def synchronize(self) -> None:
        """Wait for all launches."""
        with _errors(self._cl):
            self._queue.finish()
            if self._timed is not None:
                self._timed.finish()

    def close(self) -> None:
        """OpenCL's objects go with this one."""
        self.synchronize()


@dataclass(frozen=True, kw_only=True)
class _Recording:
    device: OpenClDevice
    launches: Sequence[tuple[Any, tuple[int, ...], tuple[int, ...]]]
    positions: Sequence[int]
    count: int

    def run(self) -> None:
        for launch in self.launches:
            self.device.enqueue(*launch)
        self.device.flush()

    def times(self) -> list[float]:
        self.device.synchronize()
        events = [self.device.enqueue(*launch, timed=True) for launch in self.launches]
        self.device.synchronize()
        times = [0.0] * self.count
        for position, event in zip(self.positions, events, strict=True):
            times[position] = (event.profile.end - event.profile.start) * 1e-9
        return times


def _arguments(kernel: Kernel, launch: Launch) -> list[Any]:
    return [
        _SCALARS[parameter.dtype](argument) if isinstance(argument, int) else _memory(argument)
        for parameter, argument in zip(kernel.parameters, launch.arguments, strict=True)
    ]


def _memory(buffer: Buffer) -> Any:
    if not isinstance(buffer, _Memory):
        raise DeviceError("The buffer is not of an OpenCL device.")
    return buffer.memory


API = DeviceApi(name="opencl", description="OpenCL", find=_find, open=_open)
