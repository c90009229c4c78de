"""What the libraries of CUDA, HIP and Metal do for the drivers, played by Python on memory of the host.

A launch calls the function of the kernel's name with the addresses of its buffers and its scalars.
"""

from __future__ import annotations

import ctypes
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOM = 1 << 20
"""Bytes that a fake device has."""


def floats(address: int, count: int) -> np.ndarray[Any, Any]:
    """The array at an address of the fake device."""
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (count,))


def scale(threads: int, source: int, target: int, factor: int, count: int) -> None:
    """The kernel of the tests: `target[i] = factor * source[i]`."""
    assert threads >= count
    floats(target, count)[:] = factor * floats(source, count)


class Heap:
    """Memory of a fake device."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def allocate(self, nbytes: int) -> int | None:
        """The address of new memory, None where there is no room."""
        if nbytes + sum(map(len, self.blocks.values())) > ROOM:
            return None
        block = (ctypes.c_char * nbytes)()
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)


class CudaResult(Enum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_IMAGE = 200
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209
    CUDA_ERROR_LAUNCH_FAILED = 719


class FakeCuda:
    """The names of ``cuda.bindings.driver`` that the driver uses; code is loaded where it says ``sm_90``."""

    CUresult = CudaResult
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=9,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=0,
        CU_DEVICE_ATTRIBUTE_INTEGRATED=0,
        CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK=1024,
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK=49152,
    )
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __init__(self) -> None:
        self.heap, self.contexts, self.captured, self.lost = Heap(), 0, None, False
        self.loaded: list[bytes] = []

    def _done(self, *values: Any) -> tuple[Any, ...]:
        return (CudaResult.CUDA_ERROR_LAUNCH_FAILED if self.lost else CudaResult.CUDA_SUCCESS, *values)

    def __getattr__(self, name: str) -> Any:
        # Destroying, releasing and popping give a status alone.
        if name.startswith("cu") and any(word in name for word in ("Destroy", "Release", "Unload", "Pop")):
            return lambda *_: self._done()
        raise AttributeError(name)

    def cuInit(self, flags: int) -> Any:
        return self._done()

    def cuGetErrorString(self, code: CudaResult) -> Any:
        return CudaResult.CUDA_SUCCESS, code.name.lower().encode()

    def cuDeviceGetCount(self) -> Any:
        return self._done(1)

    def cuDeviceGet(self, index: int) -> Any:
        return self._done(index)

    def cuDeviceGetAttribute(self, kind: int, device: int) -> Any:
        return self._done(kind)

    def cuDriverGetVersion(self) -> Any:
        return self._done(13020)

    def cuDeviceGetName(self, length: int, device: int) -> Any:
        return self._done(b"Fake H100\0\0")

    def cuDeviceTotalMem(self, device: int) -> Any:
        return self._done(ROOM)

    def cuMemGetInfo(self) -> Any:
        return self._done(ROOM - sum(map(len, self.heap.blocks.values())), ROOM)

    def cuDevicePrimaryCtxRetain(self, device: int) -> Any:
        return self._done("context")

    def cuCtxPushCurrent(self, context: str) -> Any:
        return self._done()

    def cuStreamCreate(self, flags: int) -> Any:
        return self._done("stream")

    def cuStreamSynchronize(self, stream: str) -> Any:
        return self._done()

    def cuMemAlloc(self, nbytes: int) -> Any:
        address = self.heap.allocate(nbytes)
        return self._done(address) if address else (CudaResult.CUDA_ERROR_OUT_OF_MEMORY, None)

    def cuMemFree(self, address: int) -> Any:
        del self.heap.blocks[address]
        return self._done()

    def cuMemcpyHtoDAsync(self, target: int, source: int, nbytes: int, stream: str) -> Any:
        ctypes.memmove(target, source, nbytes)
        return self._done()

    def cuMemcpyDtoHAsync(self, target: int, source: int, nbytes: int, stream: str) -> Any:
        ctypes.memmove(target, source, nbytes)
        return self._done()

    def cuModuleLoadData(self, image: bytes) -> Any:
        if b"sm_90" not in image:
            return CudaResult.CUDA_ERROR_NO_BINARY_FOR_GPU, None
        self.loaded.append(image)
        return self._done(image)

    def cuModuleGetFunction(self, module: bytes, name: bytes) -> Any:
        return self._done({b"scale": scale}[name])

    def cuStreamBeginCapture(self, stream: str, mode: int) -> Any:
        self.captured = []
        return self._done()

    def cuStreamEndCapture(self, stream: str) -> Any:
        graph, self.captured = self.captured, None
        return self._done(graph)

    def cuGraphInstantiate(self, graph: list[Any], flags: int) -> Any:
        return self._done(graph)

    def cuGraphLaunch(self, graph: list[Any], stream: str) -> Any:
        for launch in graph:
            launch()
        return self._done()

    def cuLaunchKernel(self, function: Any, *arguments: Any) -> Any:
        gx, gy, gz, bx, by, bz, shared, _, parameters, extra = arguments
        pointers = (ctypes.c_uint64 * 4).from_address(parameters)
        source, target = (ctypes.c_uint64.from_address(pointers[i]).value for i in (0, 1))
        factor = ctypes.c_int32.from_address(pointers[2]).value
        count = ctypes.c_int64.from_address(pointers[3]).value
        assert (shared, extra) == (0, 0)
        threads = gx * gy * gz * bx * by * bz

        def launch() -> None:
            scale(threads, source, target, factor, count)

        launch() if self.captured is None else self.captured.append(launch)
        return self._done()

    def cuEventCreate(self, flags: int) -> Any:
        return self._done("event")

    def cuEventRecord(self, event: str, stream: str) -> Any:
        return self._done()

    def cuEventElapsedTime(self, start: str, end: str) -> Any:
        return self._done(0.5)


class HipError(Enum):
    hipSuccess = 0
    hipErrorOutOfMemory = 2
    hipErrorLaunchFailure = 719


class FakeHip:
    """The names of ``hip.hip`` that the driver uses."""

    hipError_t = HipError
    hipMemcpyKind = SimpleNamespace(hipMemcpyHostToDevice=1, hipMemcpyDeviceToHost=2)

    def __init__(self) -> None:
        self.heap, self.lost = Heap(), False

    def _done(self, *values: Any) -> tuple[Any, ...]:
        return (HipError.hipErrorLaunchFailure if self.lost else HipError.hipSuccess, *values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("hip") and any(
            w in name for w in ("Destroy", "Unload", "SetDevice", "Synchronize")
        ):
            return lambda *_: self._done()
        if name in ("hipStreamCreate", "hipEventCreate"):
            return lambda *_: self._done(name)
        raise AttributeError(name)

    def hipGetErrorString(self, code: HipError) -> bytes:
        return code.name.encode()

    def hipGetDeviceCount(self) -> Any:
        return self._done(1)

    def hipDriverGetVersion(self) -> Any:
        return self._done(60_443_484)

    def hipMemGetInfo(self) -> Any:
        return self._done(ROOM // 2, ROOM)

    def hipDeviceProp_t(self) -> Any:
        return SimpleNamespace(
            name=b"Fake MI300X", gcnArchName=b"gfx942:sramecc+:xnack-", warpSize=64, integrated=0,
            maxThreadsPerBlock=1024, sharedMemPerBlock=65536,
        )  # fmt: skip

    def hipGetDeviceProperties(self, properties: Any, index: int) -> Any:
        return self._done()

    def hipMalloc(self, nbytes: int) -> Any:
        address = self.heap.allocate(nbytes)
        return self._done(address) if address else (HipError.hipErrorOutOfMemory, None)

    def hipFree(self, address: int) -> Any:
        del self.heap.blocks[address]
        return self._done()

    def hipMemcpyAsync(self, target: Any, source: Any, nbytes: int, kind: int, stream: str) -> Any:
        addresses = [each if isinstance(each, int) else each.ctypes.data for each in (target, source)]
        ctypes.memmove(*addresses, nbytes)
        return self._done()

    def hipModuleLoadData(self, image: bytes) -> Any:
        return self._done(image)

    def hipModuleGetFunction(self, module: bytes, name: bytes) -> Any:
        return self._done({b"scale": scale}[name])

    def hipModuleLaunchKernel(self, function: Any, **arguments: Any) -> Any:
        source, target, factor, count = arguments["extra"]
        assert isinstance(factor, ctypes.c_int32)
        assert isinstance(count, ctypes.c_int64)
        sizes = [arguments[f"{what}Dim{axis}"] for what in ("grid", "block") for axis in "XYZ"]
        scale(int(np.prod(sizes)), source, target, factor.value, count.value)
        return self._done()

    def hipEventRecord(self, event: str, stream: str) -> Any:
        return self._done()

    def hipEventElapsedTime(self, start: str, end: str) -> Any:
        return self._done(0.5)


class FakeMetal:
    """The names of the module Metal, and one object that plays device, queue and all that they make."""

    MTLResourceStorageModeShared = 0

    def __init__(self) -> None:
        self.heap, self.failure = Heap(), None
        self.MTLCompileOptions = SimpleNamespace(
            new=lambda: SimpleNamespace(setFastMathEnabled_=self._strict)
        )
        self.fast = True

    def _strict(self, fast: bool) -> None:
        self.fast = fast

    def device(self) -> Any:
        return SimpleNamespace(
            name=lambda: "Fake M1", supportsFamily_=lambda family: family <= 1007,
            recommendedMaxWorkingSetSize=lambda: ROOM, currentAllocatedSize=lambda: 0,
            maxBufferLength=lambda: ROOM, hasUnifiedMemory=lambda: True,
            maxThreadsPerThreadgroup=lambda: SimpleNamespace(width=1024),
            maxThreadgroupMemoryLength=lambda: 32768, newCommandQueue=lambda: self,
            newBufferWithLength_options_=self._buffer, newLibraryWithSource_options_error_=self._library,
            newComputePipelineStateWithFunction_error_=self._pipeline,
        )  # fmt: skip

    def _buffer(self, nbytes: int, mode: int) -> Any:
        address = self.heap.allocate(nbytes)
        if address is None:
            return None
        contents = SimpleNamespace(as_buffer=lambda count: memoryview(self.heap.blocks[address])[:count])
        return SimpleNamespace(contents=lambda: contents, address=address)

    def _library(self, source: str, options: Any, error: None) -> Any:
        if "kernel void scale" not in source:
            return None, SimpleNamespace(localizedDescription=lambda: "error: expected a kernel")
        return SimpleNamespace(newFunctionWithName_=lambda name: scale if name == "scale" else None), None

    def _pipeline(self, function: Any, error: None) -> Any:
        return SimpleNamespace(function=function, maxTotalThreadsPerThreadgroup=lambda: 1024), None

    def commandBuffer(self) -> Any:
        return SimpleNamespace(
            computeCommandEncoder=lambda: FakeEncoder(), commit=lambda: None,
            waitUntilCompleted=lambda: None, error=lambda: self.failure,
            GPUStartTime=lambda: 1.0, GPUEndTime=lambda: 1.0005,
        )  # fmt: skip


class FakeEncoder:
    """Runs what it is given at once."""

    def __init__(self) -> None:
        self.buffers: dict[int, int] = {}

    def setComputePipelineState_(self, pipeline: Any) -> None:
        self.function = pipeline.function

    def setBuffer_offset_atIndex_(self, buffer: Any, offset: int, index: int) -> None:
        self.buffers[index] = buffer.address

    def setBytes_length_atIndex_(self, data: bytes, length: int, index: int) -> None:
        assert (length, index) == (16, 2)
        self.scalars = data

    def dispatchThreadgroups_threadsPerThreadgroup_(self, grid: Any, threads: Any) -> None:
        factor, count = (int.from_bytes(self.scalars[i : i + 8], "little") for i in (0, 8))
        self.function(int(np.prod([*grid, *threads])), self.buffers[0], self.buffers[1], factor, count)

    def endEncoding(self) -> None:
        pass
