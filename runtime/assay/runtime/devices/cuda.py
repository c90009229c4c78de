"""NVIDIA's GPUs, through the driver's API (cuda-bindings): machine code is loaded, and nothing is compiled.

Launches are captured into a graph once, so that a run is one call of the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices.device import Buffer, Device, DeviceApi, DeviceInfo, Found, Launch

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.plan import Kernel

__all__ = ["API", "CudaDevice"]

_LONGEST_LOG = 600
_SCALARS: Mapping[str, type[np.generic]] = {"int32": np.int32, "uint32": np.uint32, "int64": np.int64}
_DRIVER = "Install NVIDIA's driver for the GPU: https://www.nvidia.com/drivers."


def _find() -> Found:
    try:
        from cuda.bindings import driver
    except ImportError:
        return Found(
            reason="the package cuda-bindings is not installed",
            remedy="Install it: pip install 'assay[cuda]'.",
        )
    try:
        (code,) = driver.cuInit(0)
    except (RuntimeError, OSError):  # the bindings raise it where there is no libcuda
        return Found(reason="no driver of NVIDIA's is installed", remedy=_DRIVER)
    if code != driver.CUresult.CUDA_SUCCESS:
        return Found(reason=f"the driver does not start ({_name(driver, code)})", remedy=_DRIVER)
    try:
        count = _value(driver, driver.cuDeviceGetCount())
        devices = tuple(_info(driver, index) for index in range(count))
    except (DeviceError, CapacityError) as error:
        return Found(reason=error.message.rstrip("."), remedy=_DRIVER)
    return Found(devices=devices, reason=None if devices else "the driver finds no GPU")


def _info(driver: Any, index: int) -> DeviceInfo:
    device = _value(driver, driver.cuDeviceGet(index))
    kinds = driver.CUdevice_attribute

    def attribute(name: str) -> int:
        kind = getattr(kinds, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(_value(driver, driver.cuDeviceGetAttribute(kind, device)))

    major, minor = attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")
    version = int(_value(driver, driver.cuDriverGetVersion()))
    name = _value(driver, driver.cuDeviceGetName(256, device))
    return DeviceInfo(
        api=API.name,
        index=index,
        name=bytes(name).split(b"\0")[0].decode(errors="replace"),
        architecture=f"sm_{major}{minor}",
        version=f"compute capability {major}.{minor}",
        driver=f"CUDA {version // 1000}.{version % 1000 // 10}",
        total_memory=int(_value(driver, driver.cuDeviceTotalMem(device))),
        free_memory=_free_memory(driver, device),
        unified_memory=bool(attribute("INTEGRATED")),
        max_threads=attribute("MAX_THREADS_PER_BLOCK"),
        shared_memory_bytes=attribute("MAX_SHARED_MEMORY_PER_BLOCK"),
        features=frozenset({"f16", "f64", "int64", "subgroups", "timestamps"}),
    )


def _free_memory(driver: Any, device: Any) -> int | None:
    """Free bytes, which only a context tells; None where it cannot be made."""
    try:
        context = _value(driver, driver.cuDevicePrimaryCtxRetain(device))
    except (DeviceError, CapacityError):
        return None
    try:
        _check(driver, driver.cuCtxPushCurrent(context))
        free, _ = _values(driver, driver.cuMemGetInfo())
        _check(driver, driver.cuCtxPopCurrent())
        return int(free)
    finally:
        driver.cuDevicePrimaryCtxRelease(device)


def _open(index: int) -> Device:
    from cuda.bindings import driver

    _check(driver, driver.cuInit(0))
    count = int(_value(driver, driver.cuDeviceGetCount()))
    if index >= count:
        raise DeviceError(f"There is no CUDA device {index}.")
    return CudaDevice(driver, index)


def _values(driver: Any, result: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call gave beside its status. Raises CapacityError or DeviceError where it failed."""
    code, *values = result
    if code == driver.CUresult.CUDA_SUCCESS:
        return tuple(values)
    name = _name(driver, code)
    if code == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise CapacityError(f"The CUDA device has no room: {name}.")
    raise DeviceError(f"The CUDA device failed: {name}.")


def _value(driver: Any, result: tuple[Any, ...]) -> Any:
    (value,) = _values(driver, result)
    return value


def _check(driver: Any, result: tuple[Any, ...]) -> None:
    _values(driver, result)


def _name(driver: Any, code: Any) -> str:
    status, text = driver.cuGetErrorString(code)
    return text.decode() if status == driver.CUresult.CUDA_SUCCESS and text else str(code)


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """Memory of the device: its address as the driver has it."""

    pointer: Any
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class _Program:
    functions: tuple[Any, ...]
    kernels: tuple[Kernel, ...]


class CudaDevice:
    """One GPU with its primary context and a stream, which keeps launches in order."""

    def __init__(self, driver: Any, index: int) -> None:
        self.driver = driver
        self._info = _info(driver, index)
        self._device = _value(driver, driver.cuDeviceGet(index))
        self._context = _value(driver, driver.cuDevicePrimaryCtxRetain(self._device))
        self._modules: list[Any] = []
        self._graphs: list[Any] = []
        with self.current():
            self.stream = self.value(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))

    @property
    def info(self) -> DeviceInfo:
        """What the device is."""
        return self._info

    @contextmanager
    def current(self) -> Iterator[None]:
        """The device's context on this thread, whichever calls."""
        _check(self.driver, self.driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            self.driver.cuCtxPopCurrent()

    def check(self, result: tuple[Any, ...]) -> None:
        """Raise DeviceError or CapacityError where a call of the driver failed."""
        _check(self.driver, result)

    def value(self, result: tuple[Any, ...]) -> Any:
        """The value that a call of the driver gave. Raises DeviceError, CapacityError."""
        return _value(self.driver, result)

    def allocate(self, nbytes: int) -> _Memory:
        """Memory of the GPU."""
        with self.current():
            return _Memory(pointer=self.value(self.driver.cuMemAlloc(max(1, nbytes))), nbytes=nbytes)

    def free(self, buffer: Buffer) -> None:
        """Give memory back, when launches that use it have ended."""
        with self.current():
            self.check(self.driver.cuStreamSynchronize(self.stream))
            self.check(self.driver.cuMemFree(_memory(buffer).pointer))

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy in, behind all launches."""
        if not array.nbytes:
            return
        with self.current():
            self.check(
                self.driver.cuMemcpyHtoDAsync(
                    _memory(buffer).pointer, array.ctypes.data, array.nbytes, self.stream
                )
            )
            self.check(self.driver.cuStreamSynchronize(self.stream))

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy out, behind all launches."""
        if not array.nbytes:
            return
        with self.current():
            self.check(
                self.driver.cuMemcpyDtoHAsync(
                    array.ctypes.data, _memory(buffer).pointer, array.nbytes, self.stream
                )
            )
            self.check(self.driver.cuStreamSynchronize(self.stream))

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> _Program:
        """Load machine code, or PTX where the GPU is of another architecture than the code."""
        modules: dict[str, Any] = {}
        functions = []
        with self.current():
            for kernel in kernels:
                name = kernel.file or ""
                if name not in modules:
                    modules[name] = self._load(name, files)
                    self._modules.append(modules[name])
                functions.append(
                    self.value(self.driver.cuModuleGetFunction(modules[name], kernel.name.encode()))
                )
        return _Program(functions=tuple(functions), kernels=tuple(kernels))

    def _load(self, name: str, files: Mapping[str, bytes]) -> Any:
        if name not in files:
            raise DeviceError(f"The artifact has no file {name}.")
        status = self.driver.CUresult
        code, *module = self.driver.cuModuleLoadData(files[name])
        other = (status.CUDA_ERROR_NO_BINARY_FOR_GPU, status.CUDA_ERROR_INVALID_IMAGE)
        if code in other:
            ptx = str(PurePosixPath(name).with_suffix(".ptx"))
            if ptx in files:
                code, *module = self.driver.cuModuleLoadData(files[ptx] + b"\0")
        if code != status.CUDA_SUCCESS:
            why = _name(self.driver, code)[:_LONGEST_LOG]
            raise DeviceError(
                f"{self._info.name} ({self._info.architecture}) does not load {name}: {why}.",
                hint="Build for its architecture: `assay targets` lists them.",
            )
        return module[0]

    def record(self, program: _Program, launches: Sequence[Launch]) -> _Recording:
        """Launches as one graph."""
        ready = [
            _Ready(
                position=position,
                function=program.functions[launch.kernel],
                grid=launch.grid,
                kernel=program.kernels[launch.kernel],
                values=_values_of(program.kernels[launch.kernel], launch),
            )
            for position, launch in enumerate(launches)
            if all(launch.grid)
        ]
        with self.current():
            graph = self._captured(ready)
        return _Recording(device=self, ready=tuple(ready), graph=graph, count=len(launches))

    def _captured(self, ready: Sequence[_Ready]) -> Any:
        driver = self.driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.check(driver.cuStreamBeginCapture(self.stream, mode))
        try:
            for each in ready:
                self.launch(each)
        finally:
            result = driver.cuStreamEndCapture(self.stream)
        graph = self.value(result)
        try:
            executable = self.value(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)
        self._graphs.append(executable)
        return executable

    def launch(self, ready: _Ready) -> None:
        """Put one launch on the stream."""
        threads = ready.kernel.threads or (1, 1, 1)
        pointers = np.array([value.ctypes.data for value in ready.values], np.uint64)
        self.check(
            self.driver.cuLaunchKernel(
                ready.function, *ready.grid, *threads, 0, self.stream, pointers.ctypes.data, 0
            )
        )

    def synchronize(self) -> None:
        """Wait for the stream."""
        with self.current():
            self.check(self.driver.cuStreamSynchronize(self.stream))

    def close(self) -> None:
        """Give the context back, and with it what was loaded."""
        try:
            with self.current():
                self.check(self.driver.cuStreamSynchronize(self.stream))
                for graph in self._graphs:
                    self.driver.cuGraphExecDestroy(graph)
                for module in self._modules:
                    self.driver.cuModuleUnload(module)
                self.driver.cuStreamDestroy(self.stream)
        finally:
            self.driver.cuDevicePrimaryCtxRelease(self._device)


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A launch with its arguments as arrays of one element, whose addresses the driver reads."""

    position: int
    function: Any
    kernel: Kernel
    grid: tuple[int, int, int]
    values: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, kw_only=True)
class _Recording:
    device: CudaDevice
    ready: tuple[_Ready, ...]
    graph: Any
    count: int

    def run(self) -> None:
        with self.device.current():
            self.device.check(self.device.driver.cuGraphLaunch(self.graph, self.device.stream))

    def times(self) -> list[float]:
        """Each launch between two events of its own, without the graph."""
        device, driver = self.device, self.device.driver
        times = [0.0] * self.count
        with device.current():
            events = []
            for each in self.ready:
                pair = [device.value(driver.cuEventCreate(0)) for _ in range(2)]
                device.check(driver.cuEventRecord(pair[0], device.stream))
                device.launch(each)
                device.check(driver.cuEventRecord(pair[1], device.stream))
                events.append(pair)
            device.check(driver.cuStreamSynchronize(device.stream))
            for each, (start, end) in zip(self.ready, events, strict=True):
                times[each.position] = device.value(driver.cuEventElapsedTime(start, end)) * 1e-3
                driver.cuEventDestroy(start)
                driver.cuEventDestroy(end)
        return times


def _values_of(kernel: Kernel, launch: Launch) -> tuple[npt.NDArray[Any], ...]:
    return tuple(
        np.array([argument], _SCALARS[parameter.dtype])
        if isinstance(argument, int)
        else np.array([int(_memory(argument).pointer)], np.uint64)
        for parameter, argument in zip(kernel.parameters, launch.arguments, strict=True)
    )


def _memory(buffer: Buffer) -> _Memory:
    if not isinstance(buffer, _Memory):
        raise DeviceError("The buffer is not of a CUDA device.")
    return buffer


def _runs(code: str, device: str) -> bool:
    """Machine code runs within its generation, and the PTX beside it on everything that came later."""
    numbers = [name.removeprefix("sm_") for name in (code, device)]
    return all(map(str.isdecimal, numbers)) and int(numbers[0]) <= int(numbers[1])


API = DeviceApi(name="cuda", description="CUDA", find=_find, open=_open, runs=_runs)
