"""The device that the CPU plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.compile.emulation.gpu.device import EmulatedDevice
from assay.errors import DeviceError, EmulatorError
from assay.runtime.devices.device import Launch
from assay.runtime.plan import Kernel, Parameter

CUDA = """extern "C" __global__ void shift(float* x, float* y, int by, int64_t n) {
  int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (i < n) y[i + by] = x[i];
}"""
METAL = """#include <metal_stdlib>
using namespace metal;
union __TVMArgUnion { int v_int[2]; };
struct shift_args_t { __TVMArgUnion by; long n; };
kernel void shift(device float* x [[ buffer(0) ]], device float* y [[ buffer(1) ]],
                  constant shift_args_t& arg [[ buffer(2) ]],
                  uint blockIdx [[threadgroup_position_in_grid]],
                  uint threadIdx [[thread_position_in_threadgroup]]) {
  long i = blockIdx * 32L + threadIdx;
  if (i < arg.n) y[i + arg.by.v_int[0]] = x[i];
}"""
FILES = {"k.cubin": b"machine code", "k.cu": CUDA.encode(), "k.metal": METAL.encode(), "k.cl": b"OpenCL C"}


def kernel(file: str) -> Kernel:
    buffers = (Parameter(dtype="float32"), Parameter(dtype="float32", written=True))
    scalars = (Parameter(dtype="int32", buffer=False), Parameter(dtype="int64", buffer=False))
    return Kernel(name="shift", file=file, parameters=buffers + scalars, threads=(32, 1, 1))


def shifted(folder: Path, file: str, by: int) -> tuple[np.ndarray, np.ndarray]:
    """x, and y where x was moved by ``by`` elements."""
    device = EmulatedDevice(folder)
    x, y = np.arange(40, dtype=np.float32), np.empty(44, np.float32)
    source, target = device.allocate(x.nbytes), device.allocate(y.nbytes)
    device.upload(source, x)
    program = device.compile([kernel(file)], FILES)
    launches = [
        Launch(kernel=0, arguments=(source, target, by, 40), grid=(groups, 1, 1)) for groups in (0, 2)
    ]
    recording = device.record(program, launches)
    recording.run()
    device.download(target, y)
    assert len(recording.times()) == 2
    return x, y


@pytest.mark.parametrize("file", ["k.cubin", "k.metal"])
def test_a_plan_s_kernel_runs_from_its_source(tmp_path: Path, file: str) -> None:
    x, y = shifted(tmp_path, file, 2)
    np.testing.assert_array_equal(y[2:42], x)
    assert np.isfinite(y[2:42]).all()
    assert not (np.abs(y[[0, 1, 42, 43]]) < 1e30).any()  # never written


@pytest.mark.parametrize("by", [5, -1])
def test_what_is_written_beside_a_buffer_is_found(tmp_path: Path, by: int) -> None:
    with pytest.raises(DeviceError, match="shift writes beside its argument 1"):
        shifted(tmp_path, "k.cubin", by)


def test_code_without_a_source_that_it_knows(tmp_path: Path) -> None:
    device = EmulatedDevice(tmp_path)
    with pytest.raises(DeviceError, match="neither CUDA"):
        device.compile([kernel("k.cl")], FILES)
    with pytest.raises(DeviceError, match="is not there"):
        device.compile([kernel("k.cubin")], {"k.cubin": b""})
    source = b'extern "C" __global__ void shift(float* x) { nothing_of_the_kind(x); }'
    with pytest.raises(EmulatorError, match="nothing_of_the_kind"):
        device.compile([kernel("k.cu")], {"k.cu": source})
