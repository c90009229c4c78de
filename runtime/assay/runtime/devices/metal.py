"""Apple's GPUs, through Metal (pyobjc-framework-Metal), which compiles the source when it is loaded."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices.device import Buffer, Device, DeviceApi, DeviceInfo, Found, Launch

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.plan import Kernel

__all__ = ["API", "MetalDevice", "pack_scalar"]

_LONGEST_LOG = 600
# MTLGPUFamilyApple7 and later: https://developer.apple.com/documentation/metal/mtlgpufamily
_FIRST_FAMILY, _FAMILIES = 1000, range(7, 11)


def _find() -> Found:
    if sys.platform != "darwin":
        return Found(reason="Metal is on macOS only")
    try:
        import Metal
    except ImportError:
        return Found(
            reason="the package pyobjc-framework-Metal is not installed",
            remedy="Install it: pip install 'assay[metal]'.",
        )
    devices = Metal.MTLCopyAllDevices() or ()
    return Found(
        devices=tuple(_info(index, device) for index, device in enumerate(devices)),
        reason=None if devices else "Metal finds no GPU",
    )


def _info(index: int, device: Any) -> DeviceInfo:
    families = [n for n in _FAMILIES if device.supportsFamily_(_FIRST_FAMILY + n)]
    total = int(device.recommendedMaxWorkingSetSize())
    return DeviceInfo(
        api=API.name,
        index=index,
        name=str(device.name()),
        architecture=f"apple{families[-1]}" if families else None,
        driver="Metal",
        total_memory=total,
        free_memory=max(0, total - int(device.currentAllocatedSize())),
        largest_buffer=int(device.maxBufferLength()),
        unified_memory=bool(device.hasUnifiedMemory()),
        max_threads=int(device.maxThreadsPerThreadgroup().width),
        shared_memory_bytes=int(device.maxThreadgroupMemoryLength()),
        features=frozenset({"f16", "int64", "subgroups", "timestamps"}),
    )


def _open(index: int) -> Device:
    if sys.platform != "darwin":
        raise DeviceError("Metal is on macOS only.")
    import Metal

    devices = Metal.MTLCopyAllDevices() or ()
    if index >= len(devices):
        raise DeviceError(f"There is no Metal device {index}.")
    return MetalDevice(Metal, index, devices[index])


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """Memory that CPU and GPU share."""

    memory: Any
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class _Program:
    pipelines: tuple[Any, ...]
    kernels: tuple[Kernel, ...]


class MetalDevice:
    """One GPU and a queue, which keeps launches in order."""

    def __init__(self, metal: Any, index: int, device: Any) -> None:
        self._metal, self._device = metal, device
        self._info = _info(index, device)
        self._queue = device.newCommandQueue()
        self._last: Any = None

    @property
    def info(self) -> DeviceInfo:
        """What the device is."""
        return self._info

    def allocate(self, nbytes: int) -> _Memory:
        """Memory that the CPU sees too."""
        memory = self._device.newBufferWithLength_options_(
            max(4, nbytes), self._metal.MTLResourceStorageModeShared
        )
        if memory is None:
            raise CapacityError(f"{self._info.name} has no room for {nbytes} bytes.")
        return _Memory(memory=memory, nbytes=nbytes)

    def free(self, buffer: Buffer) -> None:
        """Nothing: Metal counts who uses the memory."""
        _memory(buffer)

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy in, behind all launches."""
        self.synchronize()
        if array.nbytes:
            self._bytes(buffer)[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy out, behind all launches."""
        self.synchronize()
        if array.nbytes:
            array.reshape(-1).view(np.uint8)[:] = self._bytes(buffer)[: array.nbytes]

    def _bytes(self, buffer: Buffer) -> npt.NDArray[np.uint8]:
        own = _memory(buffer)
        return np.frombuffer(own.memory.contents().as_buffer(max(4, own.nbytes)), np.uint8)

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> _Program:
        """Build the source files, each once, without the liberties of fast math."""
        libraries: dict[str, Any] = {}
        pipelines = []
        for kernel in kernels:
            name = kernel.file or ""
            if name not in libraries:
                if name not in files:
                    raise DeviceError(f"The artifact has no file {name}.")
                options = self._metal.MTLCompileOptions.new()
                options.setFastMathEnabled_(False)
                libraries[name] = self._made(
                    name,
                    self._device.newLibraryWithSource_options_error_(files[name].decode(), options, None),
                )
            function = libraries[name].newFunctionWithName_(kernel.name)
            if function is None:
                raise DeviceError(f"{name} has no kernel {kernel.name}.")
            pipeline = self._made(
                kernel.name, self._device.newComputePipelineStateWithFunction_error_(function, None)
            )
            self._check_threads(kernel, pipeline)
            pipelines.append(pipeline)
        return _Program(pipelines=tuple(pipelines), kernels=tuple(kernels))

    def _made(self, what: str, result: tuple[Any, Any]) -> Any:
        made, error = result
        if made is None:
            words = " ".join(str(error.localizedDescription() if error else "no reason given").split())
            raise DeviceError(f"{self._info.name} cannot build {what}: {words[:_LONGEST_LOG]}")
        return made

    def _check_threads(self, kernel: Kernel, pipeline: Any) -> None:
        x, y, z = kernel.threads or (1, 1, 1)
        most = int(pipeline.maxTotalThreadsPerThreadgroup())
        if x * y * z > most:
            raise DeviceError(
                f"The kernel {kernel.name} has groups of {x * y * z} threads; {self._info.name} runs {most}."
            )

    def record(self, program: _Program, launches: Sequence[Launch]) -> _Recording:
        """The launches with their scalars packed."""
        ready = tuple(
            _Ready(
                position=position,
                pipeline=program.pipelines[launch.kernel],
                buffers=tuple(_memory(each).memory for each in launch.arguments if not isinstance(each, int)),
                scalars=_packed(program.kernels[launch.kernel], launch),
                grid=launch.grid,
                threads=program.kernels[launch.kernel].threads or (1, 1, 1),
            )
            for position, launch in enumerate(launches)
            if all(launch.grid)
        )
        return _Recording(device=self, ready=ready, count=len(launches))

    def submit(self, launches: Sequence[_Ready]) -> Any:
        """Start launches as one command buffer, one after the other."""
        commands = self._queue.commandBuffer()
        encoder = commands.computeCommandEncoder()
        for each in launches:
            encoder.setComputePipelineState_(each.pipeline)
            for index, memory in enumerate(each.buffers):
                encoder.setBuffer_offset_atIndex_(memory, 0, index)
            if each.scalars:
                encoder.setBytes_length_atIndex_(each.scalars, len(each.scalars), len(each.buffers))
            encoder.dispatchThreadgroups_threadsPerThreadgroup_(each.grid, each.threads)
        encoder.endEncoding()
        commands.commit()
        self._last = commands
        return commands

    def synchronize(self) -> None:
        """Wait for the last command buffer. Raises DeviceError where it failed."""
        if self._last is None:
            return
        commands, self._last = self._last, None
        commands.waitUntilCompleted()
        error = commands.error()
        if error is not None:
            raise DeviceError(f"{self._info.name} failed: {error.localizedDescription()}")

    def close(self) -> None:
        """Wait; Metal's objects go with this one."""
        self.synchronize()


@dataclass(frozen=True, kw_only=True)
class _Ready:
    position: int
    pipeline: Any
    buffers: tuple[Any, ...]
    scalars: bytes
    grid: tuple[int, int, int]
    threads: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class _Recording:
    device: MetalDevice
    ready: tuple[_Ready, ...]
    count: int

    def run(self) -> None:
        self.device.submit(self.ready)

    def times(self) -> list[float]:
        times = [0.0] * self.count
        for each in self.ready:
            commands = self.device.submit([each])
            self.device.synchronize()
            times[each.position] = float(commands.GPUEndTime() - commands.GPUStartTime())
        return times


def pack_scalar(dtype: str, value: int) -> bytes:
    """A scalar as generated kernels take it, behind the buffers in one structure: 8 bytes each."""
    return struct.pack({"int64": "<q", "int32": "<i4x", "uint32": "<I4x"}[dtype], value)


def _packed(kernel: Kernel, launch: Launch) -> bytes:
    return b"".join(
        pack_scalar(parameter.dtype, argument)
        for parameter, argument in zip(kernel.parameters, launch.arguments, strict=True)
        if isinstance(argument, int)
    )


def _memory(buffer: Buffer) -> _Memory:
    if not isinstance(buffer, _Memory):
        raise DeviceError("The buffer is not of a Metal device.")
    return buffer


def _runs(code: str, device: str) -> bool:
    """A family has all that those before it have."""
    numbers = [name.removeprefix("apple") for name in (code, device)]
    return all(map(str.isdecimal, numbers)) and int(numbers[0]) <= int(numbers[1])


API = DeviceApi(name="metal", description="Metal", find=_find, open=_open, runs=_runs)
