"""AMD's GPUs, through HIP (hip-python): code objects are loaded, and nothing is compiled."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices.device import Buffer, Device, DeviceApi, DeviceInfo, Found, Launch

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.plan import Kernel

__all__ = ["API", "RocmDevice"]

_SCALARS: Mapping[str, Any] = {"int32": ctypes.c_int32, "uint32": ctypes.c_uint32, "int64": ctypes.c_int64}
_DRIVER = "Install ROCm: https://rocm.docs.amd.com, and let the user into the group render."


def _find() -> Found:
    try:
        from hip import hip
    except ImportError:
        return Found(
            reason="the package hip-python is not installed", remedy="Install it: pip install 'assay[rocm]'."
        )
    try:
        code, count = hip.hipGetDeviceCount()
        if code != hip.hipError_t.hipSuccess:
            return Found(reason=f"HIP does not start ({_name(hip, code)})", remedy=_DRIVER)
        devices = tuple(_info(hip, index) for index in range(int(count)))
    except (RuntimeError, OSError):  # the bindings raise it where there is no libamdhip64
        return Found(reason="ROCm is not installed", remedy=_DRIVER)
    except (DeviceError, CapacityError) as error:
        return Found(reason=error.message.rstrip("."), remedy=_DRIVER)
    return Found(devices=devices, reason=None if devices else "HIP finds no GPU", remedy=None)


def _info(hip: Any, index: int) -> DeviceInfo:
    _values(hip, hip.hipSetDevice(index))
    free, total = _values(hip, hip.hipMemGetInfo())
    properties = hip.hipDeviceProp_t()
    _values(hip, hip.hipGetDeviceProperties(properties, index))
    (version,) = _values(hip, hip.hipDriverGetVersion())
    return DeviceInfo(
        api=API.name,
        index=index,
        name=_text(properties.name),
        # gfx90a:sramecc+:xnack- names what the architecture was set to, too.
        architecture=_text(properties.gcnArchName).partition(":")[0],
        version=f"waves of {int(properties.warpSize)} threads",
        driver=f"HIP {int(version) // 10_000_000}.{int(version) // 100_000 % 100}",
        total_memory=int(total),
        free_memory=int(free),
        unified_memory=bool(properties.integrated),
        max_threads=int(properties.maxThreadsPerBlock),
        shared_memory_bytes=int(properties.sharedMemPerBlock),
        features=frozenset({"f16", "f64", "int64", "subgroups", "timestamps"}),
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _open(index: int) -> Device:
    from hip import hip

    (count,) = _values(hip, hip.hipGetDeviceCount())
    if index >= int(count):
        raise DeviceError(f"There is no ROCm device {index}.")
    return RocmDevice(hip, index)


def _values(hip: Any, result: Any) -> tuple[Any, ...]:
    """What a call gave beside its status. Raises CapacityError or DeviceError where it failed."""
    code, *values = result if isinstance(result, tuple) else (result,)
    if code == hip.hipError_t.hipSuccess:
        return tuple(values)
    name = _name(hip, code)
    if code == hip.hipError_t.hipErrorOutOfMemory:
        raise CapacityError(f"The ROCm device has no room: {name}.")
    raise DeviceError(f"The ROCm device failed: {name}.")


def _name(hip: Any, code: Any) -> str:
    text = hip.hipGetErrorString(code)
    return _text(text[-1] if isinstance(text, tuple) else text)


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """Memory of the device, as HIP has it."""

    pointer: Any
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class _Program:
    functions: tuple[Any, ...]
    kernels: tuple[Kernel, ...]


class RocmDevice:
    """One GPU and a stream, which keeps launches in order."""

    def __init__(self, hip: Any, index: int) -> None:
        self._hip = hip
        self._info = _info(hip, index)
        self._modules: list[Any] = []
        (self._stream,) = self.call("hipStreamCreate")

    @property
    def info(self) -> DeviceInfo:
        """What the device is."""
        return self._info

    def call(self, name: str, *arguments: Any, **named: Any) -> tuple[Any, ...]:
        """What a function of HIP gives, on this device, whichever thread calls.

        Raises DeviceError, CapacityError.
        """
        _values(self._hip, self._hip.hipSetDevice(self._info.index))
        return _values(self._hip, getattr(self._hip, name)(*arguments, **named))

    def allocate(self, nbytes: int) -> _Memory:
        """Memory of the GPU."""
        (pointer,) = self.call("hipMalloc", max(1, nbytes))
        return _Memory(pointer=pointer, nbytes=nbytes)

    def free(self, buffer: Buffer) -> None:
        """Give memory back, when launches that use it have ended."""
        self.synchronize()
        self.call("hipFree", _memory(buffer).pointer)

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy in, behind all launches."""
        self._copy(_memory(buffer).pointer, array, array.nbytes, "hipMemcpyHostToDevice")

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy out, behind all launches."""
        self._copy(array, _memory(buffer).pointer, array.nbytes, "hipMemcpyDeviceToHost")

    def _copy(self, target: Any, source: Any, nbytes: int, kind: str) -> None:
        if nbytes:
            direction = getattr(self._hip.hipMemcpyKind, kind)
            self.call("hipMemcpyAsync", target, source, nbytes, direction, self._stream)
            self.synchronize()

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> _Program:
        """Load code objects."""
        modules: dict[str, Any] = {}
        functions: list[Any] = []
        for kernel in kernels:
            name = kernel.file or ""
            if name not in modules:
                if name not in files:
                    raise DeviceError(f"The artifact has no file {name}.")
                (modules[name],) = self.call("hipModuleLoadData", files[name])
                self._modules.append(modules[name])
            functions += self.call("hipModuleGetFunction", modules[name], kernel.name.encode())
        return _Program(functions=tuple(functions), kernels=tuple(kernels))

    def record(self, program: _Program, launches: Sequence[Launch]) -> _Recording:
        """The launches with their arguments in C's types."""
        ready = tuple(
            (position, program.functions[launch.kernel], _launch_arguments(program, launch))
            for position, launch in enumerate(launches)
            if all(launch.grid)
        )
        return _Recording(device=self, ready=ready, count=len(launches))

    def launch(self, function: Any, arguments: Mapping[str, Any]) -> None:
        """Put one launch on the stream."""
        self.call("hipModuleLaunchKernel", function, stream=self._stream, **arguments)

    def event(self) -> Any:
        """An event on the stream, recorded now."""
        (event,) = self.call("hipEventCreate")
        self.call("hipEventRecord", event, self._stream)
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Between two events, which go."""
        (milliseconds,) = self.call("hipEventElapsedTime", start, end)
        self.call("hipEventDestroy", start)
        self.call("hipEventDestroy", end)
        return float(milliseconds) * 1e-3

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.call("hipStreamSynchronize", self._stream)

    def close(self) -> None:
        """Give back what was loaded."""
        self.synchronize()
        for module in self._modules:
            self.call("hipModuleUnload", module)
        self.call("hipStreamDestroy", self._stream)


@dataclass(frozen=True, kw_only=True)
class _Recording:
    device: RocmDevice
    ready: tuple[tuple[int, Any, Mapping[str, Any]], ...]
    count: int

    def run(self) -> None:
        for _, function, arguments in self.ready:
            self.device.launch(function, arguments)

    def times(self) -> list[float]:
        events = []
        for _, function, arguments in self.ready:
            start = self.device.event()
            self.device.launch(function, arguments)
            events.append((start, self.device.event()))
        self.device.synchronize()
        times = [0.0] * self.count
        for (position, _, _), pair in zip(self.ready, events, strict=True):
            times[position] = self.device.seconds(*pair)
        return times


def _launch_arguments(program: _Program, launch: Launch) -> dict[str, Any]:
    kernel = program.kernels[launch.kernel]
    x, y, z = kernel.threads or (1, 1, 1)
    grid_x, grid_y, grid_z = launch.grid
    packed = tuple(
        _SCALARS[parameter.dtype](argument) if isinstance(argument, int) else _memory(argument).pointer
        for parameter, argument in zip(kernel.parameters, launch.arguments, strict=True)
    )
    return {
        "gridDimX": grid_x, "gridDimY": grid_y, "gridDimZ": grid_z,
        "blockDimX": x, "blockDimY": y, "blockDimZ": z,
        "sharedMemBytes": 0, "kernelParams": None, "extra": packed,
    }  # fmt: skip


def _memory(buffer: Buffer) -> _Memory:
    if not isinstance(buffer, _Memory):
        raise DeviceError("The buffer is not of a ROCm device.")
    return buffer


API = DeviceApi(name="rocm", description="ROCm", find=_find, open=_open)
