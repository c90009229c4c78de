"""The drivers of CUDA, ROCm and Metal on libraries that Python plays: no test here sees a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from assay.errors import CapacityError, DeviceError
from assay.runtime.devices import cuda, metal, rocm
from assay.runtime.devices.device import Launch
from assay.runtime.plan import Kernel, Parameter

from .fakes import ROOM, FakeCuda, FakeHip, FakeMetal

FILES = {"cuda": "k.cubin", "rocm": "k.co", "metal": "k.metal"}
CODE = {"k.cubin": b"for sm_90", "k.co": b"code", "k.metal": b"kernel void scale()"}


def kernel(api: str) -> Kernel:
    buffers = (Parameter(dtype="float32"), Parameter(dtype="float32", written=True))
    scalars = (Parameter(dtype="int32", buffer=False), Parameter(dtype="int64", buffer=False))
    return Kernel(name="scale", file=FILES[api], parameters=buffers + scalars, threads=(32, 1, 1))


def opened(api: str):
    """A device, and what plays its library."""
    if api == "cuda":
        fake = FakeCuda()
        return cuda.CudaDevice(fake, 0), fake
    if api == "rocm":
        fake = FakeHip()
        return rocm.RocmDevice(fake, 0), fake
    fake = FakeMetal()
    return metal.MetalDevice(fake, 0, fake.device()), fake


@pytest.fixture(params=["cuda", "rocm", "metal"])
def api(request):
    return request.param


def recorded(api, device, count=50):
    source, target = (device.allocate(4 * count) for _ in range(2))
    program = device.compile([kernel(api)], CODE)
    none = Launch(kernel=0, arguments=(source, target, 7, count), grid=(0, 1, 1))
    launch = Launch(kernel=0, arguments=(source, target, 3, count), grid=(2, 1, 1))
    return source, target, device.record(program, [none, launch])


def test_what_is_launched_sees_its_arguments(api):
    device, _ = opened(api)
    source, target, recording = recorded(api, device)
    for start in (0, 100):
        data, found = np.arange(start, start + 50, dtype=np.float32), np.zeros(50, np.float32)
        device.upload(source, data)
        recording.run()
        device.download(target, found)
        np.testing.assert_array_equal(found, 3 * data)
    device.synchronize()
    device.close()


def test_times_of_launches_that_are_none_are_zero(api):
    device, _ = opened(api)
    assert recorded(api, device)[2].times() == [0.0, pytest.approx(5e-4)]


def test_no_room_is_told(api):
    device, fake = opened(api)
    with pytest.raises(CapacityError, match="no room"):
        device.allocate(2 * ROOM)
    held = device.allocate(64)
    device.free(held)
    if api != "metal":  # there, memory goes with the object
        assert not fake.heap.blocks


def test_what_is_missing_from_the_artifact(api):
    device, _ = opened(api)
    with pytest.raises(DeviceError, match="no file"):
        device.compile([kernel(api)], {})


def test_a_buffer_of_another_device(api):
    device, _ = opened(api)
    with pytest.raises(DeviceError, match="not of a"):
        device.upload(SimpleNamespace(nbytes=4), np.zeros(1, np.float32))


@pytest.mark.parametrize("name", ["cuda", "rocm"])
def test_a_lost_device(name):
    device, fake = opened(name)
    _, _, recording = recorded(name, device)
    fake.lost = True
    for call in (recording.run, device.synchronize, lambda: device.allocate(4)):
        with pytest.raises(DeviceError, match="failed"):
            call()


def test_a_failed_command_buffer_of_metal():
    device, fake = opened("metal")
    _, _, recording = recorded("metal", device)
    fake.failure = SimpleNamespace(localizedDescription=lambda: "the GPU was reset")
    recording.run()
    with pytest.raises(DeviceError, match="the GPU was reset"):
        device.synchronize()


def test_what_the_devices_are():
    info = opened("cuda")[0].info
    assert (info.name, info.architecture, info.driver) == ("Fake H100", "sm_90", "CUDA 13.2")
    assert (info.total_memory, info.free_memory) == (ROOM, ROOM)
    info = opened("rocm")[0].info
    assert (info.name, info.architecture, info.driver) == ("Fake MI300X", "gfx942", "HIP 6.4")
    assert info.free_memory == ROOM // 2
    info = opened("metal")[0].info
    assert (info.name, info.architecture, info.unified_memory) == ("Fake M1", "apple7", True)


def test_a_gpu_of_another_architecture_takes_the_ptx():
    device, fake = opened("cuda")
    device.compile([kernel("cuda")], {"k.cubin": b"for sm_80", "k.ptx": b".target sm_90"})
    assert fake.loaded == [b".target sm_90\0"]
    with pytest.raises(DeviceError, match=r"Fake H100 \(sm_90\) does not load k\.cubin"):
        device.compile([kernel("cuda")], {"k.cubin": b"for sm_80"})


def test_metal_says_what_its_compiler_says_and_computes_strictly():
    device, fake = opened("metal")
    with pytest.raises(DeviceError, match="expected a kernel"):
        device.compile([kernel("metal")], {"k.metal": b"nothing"})
    assert fake.fast is False


def test_what_is_missing_is_said_with_a_remedy(monkeypatch):
    for name in ("cuda", "cuda.bindings", "hip"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "cuda-bindings" in cuda.API.find().reason
    assert "pip install" in cuda.API.find().remedy
    assert "hip-python" in rocm.API.find().reason
    monkeypatch.setattr(metal.sys, "platform", "linux")
    assert metal.API.find().reason == "Metal is on macOS only"


def test_devices_are_found_through_the_libraries(monkeypatch):
    bindings, package = ModuleType("cuda.bindings"), ModuleType("cuda")
    bindings.driver = fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda", package)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    assert [each.name for each in cuda.API.find().devices] == ["Fake H100"]
    assert cuda.API.open(0).info.index == 0
    with pytest.raises(DeviceError, match="no CUDA device 3"):
        cuda.API.open(3)
    fake.lost = True
    assert "does not start" in cuda.API.find().reason
    module = ModuleType("hip")
    module.hip = FakeHip()
    monkeypatch.setitem(sys.modules, "hip", module)
    assert [each.architecture for each in rocm.API.find().devices] == ["gfx942"]
    with pytest.raises(DeviceError, match="no ROCm device 1"):
        rocm.API.open(1)
