"""Devices through wgpu: Vulkan, Metal and Direct3D 12 behind the interface of WebGPU, kernels in WGSL.

A kernel's buffers are bindings 0, 1, ... of group 0; behind them lies one uniform with its scalars, 4 bytes
each, and the number of the last group in x.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

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
from assay.runtime.devices.wgsl import SPREAD, split_wgsl

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.plan import Kernel

__all__ = ["WgpuDevice", "wgpu_api"]

_BACKENDS = ("Vulkan", "Metal", "DX12")
# Raised to what the adapter has; without asking, a device has the least that WebGPU promises.
_LIMITS = (
    "max-buffer-size",
    "max-storage-buffer-binding-size",
    "max-storage-buffers-per-shader-stage",
    "max-compute-workgroup-storage-size",
    "max-compute-invocations-per-workgroup",
    "max-compute-workgroup-size-x",
    "max-compute-workgroup-size-y",
    "max-compute-workgroup-size-z",
)
_FEATURES = {"shader-f16": "f16", "timestamp-query": "timestamps", "subgroup": "subgroups"}
_GROUPS = 65535  # in each dimension: WebGPU's maxComputeWorkgroupsPerDimension
_LONGEST_MESSAGE = 600
_QUERIES = 4096  # the largest query set of WebGPU
_Dispatch: TypeAlias = "tuple[Any, Any, tuple[int, int, int]]"  # pipeline, bind group and grid
_LOST = ("device is lost", "device lost", "lost device", "parent device")


@cache
def _wgpu() -> Any:
    """The package, set up for the APIs that have compute kernels. Raises ImportError."""
    import wgpu
    from wgpu.backends.wgpu_native import extras

    if "XDG_RUNTIME_DIR" not in os.environ:
        # Mesa's layer that picks a device by environment variables complains on stderr without a desktop.
        os.environ.setdefault("NODEVICE_SELECT", "1")
    extras.set_instance_extras(backends=_BACKENDS)
    return wgpu


def wgpu_api(name: str, description: str, backends: Sequence[str], remedy: str) -> DeviceApi:
    """An API whose devices are wgpu's adapters of ``backends``; ``remedy`` helps where there is none."""

    def find() -> Found:
        try:
            wgpu = _wgpu()
        except ImportError:
            return Found(
                reason="the package wgpu is not installed", remedy="Install it: pip install 'assay[webgpu]'."
            )
        except (OSError, RuntimeError) as error:
            return Found(reason=f"wgpu cannot be loaded ({_sentence(error)})")
        try:
            adapters = _adapters(wgpu, backends)
        except Exception as error:  # whatever a driver that is broken makes wgpu raise
            return Found(reason=f"wgpu cannot look for adapters ({_sentence(error)})", remedy=remedy)
        if not adapters:
            return Found(reason=f"no driver offers {description} ({' or '.join(backends)})", remedy=remedy)
        return Found(devices=tuple(_info(name, i, each) for i, each in enumerate(adapters)))

    def open_device(index: int) -> Device:
        wgpu = _wgpu()
        adapters = _adapters(wgpu, backends)
        if index >= len(adapters):
            raise DeviceError(f"There is no {description} device {index}.", hint=remedy)
        return WgpuDevice(wgpu, adapters[index], _info(name, index, adapters[index]))

    return DeviceApi(name=name, description=description, find=find, open=open_device)


def _adapters(wgpu: Any, backends: Sequence[str]) -> list[Any]:
    """All adapters of some backends: discrete ones first, those that the CPU plays last."""
    order = ("DiscreteGPU", "IntegratedGPU")
    found = [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] in backends]
    kinds = [a.info["adapter_type"] for a in found]
    ranks = [order.index(k) if k in order else 3 if k == "CPU" else 2 for k in kinds]
    return [adapter for _, adapter in sorted(zip(ranks, found, strict=True), key=lambda pair: pair[0])]


def _info(api: str, index: int, adapter: Any) -> DeviceInfo:
    info, limits = adapter.info, adapter.limits
    largest = min(limits["max-buffer-size"], limits["max-storage-buffer-binding-size"])
    return DeviceInfo(
        api=api,
        index=index,
        name=str(info["device"]).strip(),
        architecture=info["architecture"] or None,
        version=str(info["backend_type"]),
        driver=str(info["description"]).strip() or None,
        largest_buffer=int(largest),
        unified_memory={"DiscreteGPU": False, "IntegratedGPU": True, "CPU": True}.get(info["adapter_type"]),
        max_threads=int(limits["max-compute-invocations-per-workgroup"]),
        shared_memory_bytes=int(limits["max-compute-workgroup-storage-size"]),
        features=frozenset(name for flag, name in _FEATURES.items() if flag in adapter.features),
        emulated=info["adapter_type"] == "CPU",
    )


def _sentence(error: BaseException) -> str:
    """A message on one line, shortened, without the frames that wgpu puts around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    frames = ("Validation Error", "Caused by:", "In wgpu")
    lines = [line for line in lines if line and not line.startswith(frames)]
    text = " ".join(lines) or type(error).__name__
    return text[:_LONGEST_MESSAGE].rstrip(".")


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """A buffer of wgpu, padded to 4 bytes."""

    memory: Any
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class _Program:
    """Pipelines in the order of the plan, their kernels, and which may go on in z."""

    pipelines: tuple[Any, ...]
    kernels: tuple[Kernel, ...]
    spread: tuple[bool, ...]


class WgpuDevice:
    """One device with its queue, which keeps launches in order."""

    def __init__(self, wgpu: Any, adapter: Any, info: DeviceInfo) -> None:
        self._wgpu, self._info = wgpu, info
        self._lost = False
        usage = wgpu.BufferUsage
        self._usage = usage.STORAGE | usage.COPY_DST | usage.COPY_SRC
        with self._errors():
            self._device = adapter.request_device_sync(
                required_features=[flag for flag in _FEATURES if flag in adapter.features],
                required_limits={name: adapter.limits[name] for name in _LIMITS if name in adapter.limits},
            )
            self._fence = self._device.create_buffer(size=4, usage=self._usage)
        self._alignment = int(adapter.limits["min-uniform-buffer-offset-alignment"])

    @property
    def info(self) -> DeviceInfo:
        """What the device is."""
        return self._info

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What wgpu raises as one sentence; a device that was lost stays so."""
        if self._lost:
            raise DeviceError(f"{self._info.name} was lost.", hint="Load the model again.")
        try:
            yield
        except self._wgpu.GPUOutOfMemoryError as error:
            raise CapacityError(f"{self._info.name} has no room: {_sentence(error)}.") from error
        except (self._wgpu.GPUError, RuntimeError) as error:
            reason = _sentence(error)
            if any(words in reason.lower() for words in _LOST):
                self._lost = True
                raise DeviceError(f"{self._info.name} was lost: {reason}.") from error
            raise DeviceError(f"{self._info.name} failed: {reason}.") from error

    def allocate(self, nbytes: int) -> _Memory:
        """Memory that kernels may read and write."""
        check_buffer(self._info, nbytes)
        with self._errors():
            memory = self._device.create_buffer(size=max(4, -(-nbytes // 4) * 4), usage=self._usage)
        return _Memory(memory=memory, nbytes=nbytes)

    def free(self, buffer: Buffer) -> None:
        """Give memory back; wgpu keeps it while a launch uses it."""
        memory = _memory(buffer)
        if not self._lost:
            with self._errors():
                memory.destroy()

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy in."""
        if array.nbytes:
            with self._errors():
                self._device.queue.write_buffer(_memory(buffer), 0, array)

    def download(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy out, behind all launches."""
        if array.nbytes:
            with self._errors():
                data = self._device.queue.read_buffer(_memory(buffer), 0, array.nbytes)
            array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)

    def compile(self, kernels: Sequence[Kernel], files: Mapping[str, bytes]) -> _Program:
        """A pipeline for each kernel, from the part of its file that has its name."""
        sources: dict[str, dict[str, str]] = {}
        pipelines, spread = [], []
        for kernel in kernels:
            name = kernel.file or ""
            if name not in sources:
                if name not in files:
                    raise DeviceError(f"The kernel {kernel.name} has no file {name}.")
                sources[name] = split_wgsl(files[name].decode())
            source = sources[name].get(kernel.name)
            if source is None:
                raise DeviceError(f"There is no kernel {kernel.name} in {name}.")
            self._check_limits(kernel, source)
            pipelines.append(self._pipeline(kernel.name, source))
            spread.append(SPREAD in source)
        return _Program(pipelines=tuple(pipelines), kernels=tuple(kernels), spread=tuple(spread))

    def _check_limits(self, kernel: Kernel, source: str) -> None:
        threads = int(np.prod(kernel.threads or (1, 1, 1)))
        most = self._info.max_threads or threads
        if threads > most:
            raise DeviceError(
                f"The kernel {kernel.name} has groups of {threads} threads; {self._info.name} runs {most}."
            )
        if "enable f16;" in source and "f16" not in self._info.features:
            raise DeviceError(
                f"The kernel {kernel.name} computes in float16, which {self._info.name} does not.",
                hint="It lacks the feature shader-f16. Use another device, or a scheme of float32.",
            )

    def _pipeline(self, name: str, source: str) -> Any:
        with self._errors():
            module = self._device.create_shader_module(label=name, code=source)
            return self._device.create_compute_pipeline(
                label=name, layout="auto", compute={"module": module, "entry_point": name}
            )

    def record(self, program: _Program, launches: Sequence[Launch]) -> _Recording:
        """Bind groups of all launches, whose uniforms lie in one buffer."""
        ready = [(i, each) for i, each in enumerate(launches) if all(each.grid)]
        packed = [_uniform(program.kernels[each.kernel], each) for _, each in ready]
        stride = -(-max([16, *map(len, packed)]) // self._alignment) * self._alignment
        uniforms = b"".join(data.ljust(stride, b"\0") for data in packed) or bytes(16)
        with self._errors():
            memory = self._device.create_buffer_with_data(data=uniforms, usage=self._wgpu.BufferUsage.UNIFORM)
            dispatches = [
                self._dispatch(program, launch, memory, number * stride, len(packed[number]))
                for number, (_, launch) in enumerate(ready)
            ]
        return _Recording(
            device=self,
            dispatches=dispatches,
            positions=[position for position, _ in ready],
            count=len(launches),
        )

    def _dispatch(
        self, program: _Program, launch: Launch, uniforms: Any, offset: int, size: int
    ) -> _Dispatch:
        pipeline = program.pipelines[launch.kernel]
        buffers = [_memory(each) for each in launch.arguments if not isinstance(each, int)]
        entries = [
            {"binding": i, "resource": {"buffer": buffer, "offset": 0, "size": buffer.size}}
            for i, buffer in enumerate(buffers)
        ]
        resource = {"buffer": uniforms, "offset": offset, "size": size}
        entries.append({"binding": len(buffers), "resource": resource})
        group = self._device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
        name = program.kernels[launch.kernel].name
        return pipeline, group, _spread(name, launch.grid, possible=program.spread[launch.kernel])

    def submit(self, dispatches: Sequence[_Dispatch]) -> None:
        """Start launches, in order."""
        with self._errors():
            encoder = self._device.create_command_encoder()
            compute = encoder.begin_compute_pass()
            for pipeline, group, grid in dispatches:
                compute.set_pipeline(pipeline)
                compute.set_bind_group(0, group)
                compute.dispatch_workgroups(*grid)
            compute.end()
            self._device.queue.submit([encoder.finish()])

    def seconds(self, dispatches: Sequence[_Dispatch]) -> list[float]:
        """Seconds of each launch: by the device's clock, or by the host's where it has none."""
        self.synchronize()
        if "timestamps" not in self._info.features:
            return [self._elapsed(each) for each in dispatches]
        half = _QUERIES // 2
        chunks = [dispatches[i : i + half] for i in range(0, len(dispatches), half)]
        return [each for chunk in chunks for each in self._timed(chunk)]

    def _elapsed(self, dispatch: _Dispatch) -> float:
        start = time.perf_counter()
        self.submit([dispatch])
        self.synchronize()
        return time.perf_counter() - start

    def _timed(self, dispatches: Sequence[_Dispatch]) -> list[float]:
        usage, count = self._wgpu.BufferUsage, 2 * len(dispatches)
        with self._errors():
            queries = self._device.create_query_set(type="timestamp", count=count)
            resolved = self._device.create_buffer(size=8 * count, usage=usage.QUERY_RESOLVE | usage.COPY_SRC)
            encoder = self._device.create_command_encoder()
            for i, (pipeline, group, grid) in enumerate(dispatches):
                writes = {
                    "query_set": queries,
                    "beginning_of_pass_write_index": 2 * i,
                    "end_of_pass_write_index": 2 * i + 1,
                }
                compute = encoder.begin_compute_pass(timestamp_writes=writes)
                compute.set_pipeline(pipeline)
                compute.set_bind_group(0, group)
                compute.dispatch_workgroups(*grid)
                compute.end()
            encoder.resolve_query_set(queries, 0, count, resolved, 0)
            self._device.queue.submit([encoder.finish()])
            stamps = np.frombuffer(self._device.queue.read_buffer(resolved), np.uint64).reshape(-1, 2)
        return [float(end - begin) * 1e-9 for begin, end in stamps.astype(np.int64)]

    def synchronize(self) -> None:
        """Wait for all launches: on_submitted_work_done fails in wgpu 0.32, and reads are in order too."""
        with self._errors():
            self._device.queue.read_buffer(self._fence)

    def close(self) -> None:
        """Give the device back."""
        if not self._lost:
            self._lost = True
            self._device.destroy()


@dataclass(frozen=True, kw_only=True)
class _Recording:
    device: WgpuDevice
    dispatches: Sequence[_Dispatch]
    positions: Sequence[int]
    count: int

    def run(self) -> None:
        self.device.submit(self.dispatches)

    def times(self) -> list[float]:
        times = [0.0] * self.count
        for position, seconds in zip(self.positions, self.device.seconds(self.dispatches), strict=True):
            times[position] = seconds
        return times


def _uniform(kernel: Kernel, launch: Launch) -> bytes:
    """Scalars in the order of the parameters, then the number of the last group in x; padded to 16 bytes."""
    data = b""
    for parameter, value in zip(kernel.parameters, launch.arguments, strict=True):
        if isinstance(value, int):
            try:
                data += struct.pack("<I" if parameter.dtype.startswith("u") else "<i", value)
            except struct.error:
                raise DeviceError(f"The size {value} does not fit into the 32 bits of WGSL.") from None
    data += struct.pack("<I", launch.grid[0] - 1)
    return data.ljust(-(-len(data) // 16) * 16, b"\0")


def _spread(name: str, grid: tuple[int, int, int], *, possible: bool) -> tuple[int, int, int]:
    """A grid with at most 65535 groups in each dimension, more in x going on in z."""
    x, y, z = grid
    if x > _GROUPS and z == 1 and possible:
        z = -(-x // _GROUPS)
        x = -(-x // z)
    if max(x, y, z) > _GROUPS:
        raise DeviceError(f"The kernel {name} needs a grid of {x}x{y}x{z}; WebGPU has at most {_GROUPS}.")
    return x, y, z


def _memory(buffer: Buffer) -> Any:
    if not isinstance(buffer, _Memory):
        raise DeviceError("The buffer is not of a device of wgpu.")
    return buffer.memory
