"""Kernels in WGSL on an adapter: what arrives, what is refused, and how a lost device shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices import open_device
from assay.runtime.devices.device import Launch
from assay.runtime.devices.vulkan import API as VULKAN
from assay.runtime.devices.webgpu import API as WEBGPU
from assay.runtime.devices.wgpu_device import WgpuDevice, _info, _spread, wgpu_api
from assay.runtime.devices.wgsl import split_wgsl
from assay.runtime.plan import Kernel, Parameter

FILE = "lib/model.wgsl"
# In the form that TVM gives kernels: bindings, then scalars with the last group in x.
ADD = """
@group(0) @binding(0) var<storage, read> x_ptr : array<i32>;
@group(0) @binding(1) var<storage, read_write> y_ptr : array<i32>;
struct PODArgs { n: i32, m: i32, packGridDimX: u32 }
@group(0) @binding(2) var<uniform> podArgs : PODArgs;
@compute @workgroup_size(4, 1, 1)
fn NAME(
  @builtin(workgroup_id) blockIdx : vec3<u32>,
  @builtin(num_workgroups) gridDim : vec3<u32>,
  @builtin(local_invocation_id) threadIdx : vec3<u32>
) {
  if (blockIdx.z * gridDim.x + blockIdx.x > podArgs.packGridDimX) { return; }
  let group : i32 = i32(blockIdx.z * gridDim.x + blockIdx.x);
  let at : i32 = group * 4i + i32(threadIdx.x);
  if (at < podArgs.n) { y_ptr[at] = x_ptr[at] + podArgs.m; }
}
"""


def heading(name: str) -> str:
    return f"// Function: {name}\n//----\n// Function: {name}\n//----\n" + ADD.replace("NAME", name)


FILES = {FILE: (heading("add") + heading("again")).encode()}


def kernel(name: str, threads: int = 4, file: str = FILE) -> Kernel:
    parameters = (
        Parameter(dtype="int32"),
        Parameter(dtype="int32", written=True),
        Parameter(dtype="int64", buffer=False),
        Parameter(dtype="int32", buffer=False),
    )
    return Kernel(name=name, file=file, parameters=parameters, threads=(threads, 1, 1))


@pytest.fixture(params=["vulkan", "webgpu"])
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    api = VULKAN if request.param == "vulkan" else WEBGPU
    found = api.find()
    if not found.devices:
        pytest.skip(f"needs an adapter: {found.reason}. {found.remedy}")
    opened = open_device(request.param)
    yield opened
    opened.close()


def buffer_of(device: Any, array: Any) -> Any:
    buffer = device.allocate(array.nbytes)
    device.upload(buffer, array)
    return buffer


def test_launches_are_timed_by_the_host_where_the_device_has_no_clock(device: Any) -> None:
    recording = run_add(device, 9)
    device._info = dataclasses.replace(device.info, features=frozenset())
    (seconds,) = recording.times()
    assert seconds > 0


def run_add(device: Any, n: int, name: str = "add", m: int = -7) -> Any:
    program = device.compile([kernel(name)], FILES)
    x = np.arange(n, dtype=np.int32)
    source, target = buffer_of(device, x), device.allocate(4 * n)
    launch = Launch(kernel=0, arguments=(source, target, n, m), grid=(-(-n // 4), 1, 1))
    recording = device.record(program, [launch])
    recording.run()
    result = np.empty(n, np.int32)
    device.download(target, result)
    np.testing.assert_array_equal(result, x + m)
    return recording


@pytest.mark.parametrize("n", [1, 5, 1000])
def test_a_kernel_adds(device: Any, n: int) -> None:
    run_add(device, n)


def test_the_second_kernel_of_a_file_is_a_module_of_its_own(device: Any) -> None:
    run_add(device, 9, "again")


def test_a_grid_beyond_the_limit_goes_on_in_z(device: Any) -> None:
    run_add(device, 4 * 70000)


def test_each_launch_sees_what_the_one_before_wrote(device: Any) -> None:
    program = device.compile([kernel("add"), kernel("again")], FILES)
    a, b, c = buffer_of(device, np.arange(8, dtype=np.int32)), device.allocate(32), device.allocate(32)
    launches = [
        Launch(kernel=0, arguments=(a, b, 8, 1), grid=(2, 1, 1)),
        Launch(kernel=1, arguments=(b, c, 8, 10), grid=(2, 1, 1)),
        Launch(kernel=0, arguments=(c, a, 8, 100), grid=(0, 1, 1)),
    ]
    recording = device.record(program, launches)
    recording.run()
    result = np.empty(8, np.int32)
    device.download(c, result)
    np.testing.assert_array_equal(result, np.arange(8) + 11)
    device.download(a, result)
    np.testing.assert_array_equal(result, np.arange(8))
    times = recording.times()
    assert len(times) == 3
    assert min(times[:2]) >= 0
    assert times[2] == 0.0


def test_a_size_beyond_32_bits_is_refused(device: Any) -> None:
    program = device.compile([kernel("add")], FILES)
    a, b = device.allocate(4), device.allocate(4)
    with pytest.raises(DeviceError, match="4294967296 does not fit"):
        device.record(program, [Launch(kernel=0, arguments=(a, b, 2**32, 1), grid=(1, 1, 1))])


def test_a_buffer_that_is_too_large_is_refused(device: Any) -> None:
    with pytest.raises(CapacityError, match="has no buffers of"):
        device.allocate(1 << 45)


def test_one_buffer_cannot_be_read_and_written_by_a_launch(device: Any) -> None:
    program = device.compile([kernel("add")], FILES)
    a = device.allocate(16)
    recording = device.record(program, [Launch(kernel=0, arguments=(a, a, 4, 1), grid=(1, 1, 1))])
    with pytest.raises(DeviceError, match="failed: "):
        recording.run()


@pytest.mark.parametrize(
    ("files", "wanted", "message"),
    [
        ({}, kernel("add"), "has no file"),
        (FILES, kernel("subtract"), "There is no kernel subtract"),
        ({FILE: b"// Function: add\nfn add( {"}, kernel("add"), "failed: "),
        (FILES, kernel("add", threads=100_000), "100000 threads"),
    ],
)
def test_kernels_that_cannot_be_made_are_refused(
    device: Any, files: dict[str, bytes], wanted: Kernel, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        device.compile([wanted], files)


def test_a_closed_device_is_lost(device: Any) -> None:
    buffer = device.allocate(16)
    device.close()
    with pytest.raises(DeviceError, match="was lost"):
        device.upload(buffer, np.zeros(4, np.int32))
    with pytest.raises(DeviceError, match="was lost"):
        device.synchronize()
    device.free(buffer)


def test_a_device_that_dies_on_the_way_is_lost_from_then_on(device: Any) -> None:
    recording = run_add(device, 5)
    device._device.destroy()  # what a reset of the driver does
    with pytest.raises(DeviceError, match=device.info.name.split()[0]):
        recording.times()


def test_a_software_adapter_says_so(device: Any) -> None:
    if device.info.driver is None or "Mesa" not in device.info.driver or "llvmpipe" not in device.info.name:
        assert not device.info.emulated
    else:
        assert device.info.emulated
        assert device.info.version == "Vulkan"


def test_a_kernel_of_half_precision_needs_the_feature() -> None:
    device = object.__new__(WgpuDevice)
    adapter: Any = type("Adapter", (), {})()
    adapter.info = {
        "device": "Old GPU", "architecture": "", "backend_type": "Vulkan", "description": "",
        "adapter_type": "DiscreteGPU",
    }  # fmt: skip
    adapter.limits = dict.fromkeys(
        (
            "max-buffer-size",
            "max-storage-buffer-binding-size",
            "max-compute-invocations-per-workgroup",
            "max-compute-workgroup-storage-size",
        ),
        256,
    )
    adapter.features = set()
    device._info = _info("vulkan", 0, adapter)
    assert device._info.unified_memory is False
    with pytest.raises(DeviceError, match=r"float16, which Old GPU does not.*\n.*shader-f16"):
        device._check_limits(kernel("half"), "enable f16;\nfn half() {}")


def test_an_api_without_adapters_says_what_helps() -> None:
    found = wgpu_api("other", "Direct3D", ("DX12",), "Use Windows.").find()
    assert not found.devices
    assert found.reason == "no driver offers Direct3D (DX12)"
    assert found.remedy == "Use Windows."


def test_a_grid_that_fits_stays() -> None:
    assert _spread("k", (65535, 3, 2), possible=True) == (65535, 3, 2)


@pytest.mark.parametrize("x", [65536, 100_000, 10_000_000])
def test_a_grid_that_goes_on_in_z_has_all_groups(x: int) -> None:
    fitted = _spread("k", (x, 5, 1), possible=True)
    assert fitted[0] * fitted[2] >= x
    assert max(fitted) <= 65535


@pytest.mark.parametrize(
    ("grid", "possible"), [((65536, 1, 1), False), ((65536, 1, 2), True), ((1, 65536, 1), True)]
)
def test_a_grid_that_cannot_go_on_is_refused(grid: tuple[int, int, int], possible: bool) -> None:
    with pytest.raises(DeviceError, match="at most 65535"):
        _spread("k", grid, possible=possible)


def test_kernels_of_a_file_by_name() -> None:
    kernels = split_wgsl(FILES[FILE].decode())
    assert list(kernels) == ["add", "again"]
    assert kernels["again"].count("fn again") == 1
    assert "fn again" not in kernels["add"]
