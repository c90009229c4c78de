"""OpenCL devices: what they tell, compute, time and refuse."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices import open_device, opencl
from assay.runtime.devices.device import Device, Launch
from assay.runtime.plan import Kernel, Parameter

SOURCE = b"""
__kernel void scale(__global float* y, __global const float* x, int n, long factor) {
  int i = get_global_id(0);
  if (i < n) y[i] = x[i] * factor;
}
"""
SCALE = Kernel(
    name="scale",
    file="kernels.cl",
    parameters=(
        Parameter(dtype="float32", written=True),
        Parameter(dtype="float32"),
        Parameter(dtype="int32", buffer=False),
        Parameter(dtype="int64", buffer=False),
    ),
    threads=(32, 1, 1),
)


@pytest.fixture(scope="module")
def device() -> Device:
    found = opencl.API.find()
    if not found.devices:
        pytest.skip(f"needs an OpenCL device, such as ci/emulator.sh installs: {found.reason}")
    return open_device("opencl")


def test_launches_run_in_order_and_take_time(device: Device) -> None:
    x = np.arange(100, dtype=np.float32)
    first, second = (device.allocate(x.nbytes) for _ in range(2))
    device.upload(first, x)
    program = device.compile([SCALE], {"kernels.cl": SOURCE})
    launches = [
        Launch(kernel=0, arguments=(second, first, 100, 3), grid=(4, 1, 1)),
        Launch(kernel=0, arguments=(first, second, 100, 2), grid=(4, 1, 1)),
        Launch(kernel=0, arguments=(first, second, 100, 9), grid=(0, 1, 1)),
    ]
    recording = device.record(program, launches)
    recording.run()
    result = np.empty_like(x)
    device.download(first, result)
    np.testing.assert_array_equal(result, 6 * x)
    times = recording.times()
    assert len(times) == 3
    assert times[0] > 0
    assert times[1] > 0
    assert times[2] == 0
    device.download(first, result)
    np.testing.assert_array_equal(result, 36 * x)
    device.free(first)
    device.free(second)
    device.synchronize()


def test_what_a_device_tells(device: Device) -> None:
    info = device.info
    assert info.api == "opencl"
    assert info.name
    assert info.total_memory is not None
    assert info.total_memory > 0
    assert {"int64", "timestamps"} <= info.features


def test_source_that_does_not_compile(device: Device) -> None:
    with pytest.raises(DeviceError, match=r"cannot build kernels\.cl") as raised:
        device.compile([SCALE], {"kernels.cl": b"__kernel void scale(__global float* y) { y[0] = nothing; }"})
    assert len(raised.value.message) < 1000
    with pytest.raises(DeviceError, match="has no file"):
        device.compile([SCALE], {})
    with pytest.raises(DeviceError):
        device.compile([SCALE], {"kernels.cl": b"__kernel void other(__global float* y) {}"})


def test_groups_that_are_too_large(device: Device) -> None:
    import msgspec

    large = msgspec.structs.replace(SCALE, threads=(1 << 20, 1, 1))
    with pytest.raises(DeviceError, match="groups of 1048576 threads"):
        device.compile([large], {"kernels.cl": SOURCE})


def test_memory_that_the_device_has_not(device: Device) -> None:
    assert device.info.largest_buffer is not None
    with pytest.raises(CapacityError, match="no buffers of"):
        device.allocate(device.info.largest_buffer + 4)


def test_a_device_that_is_not_there(device: Device) -> None:
    with pytest.raises(DeviceError, match="no OpenCL device 99") as raised:
        open_device("opencl", 99)
    assert raised.value.hint is not None
    assert device.info.name in raised.value.hint


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "pyopencl", missing)
    found = opencl.API.find()
    assert found.devices == ()
    assert found.reason == "the package pyopencl is not installed"
    assert found.remedy is not None
    assert "assay[opencl]" in found.remedy
    with pytest.raises(DeviceError, match="not installed"):
        open_device("opencl")
