"""The example of a driver of another package: found through its entry point, it runs a launch plan."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assay.errors import CapacityError, DeviceError
from assay.runtime import devices
from assay.runtime.drivers.plan_device import DeviceCalls
from assay.runtime.plan import Flavour, Kernel, Parameter, Place, Plan, Scalar, Step, Storage, Symbol, Tensor

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "python_device.py"
CODE = b"""
def add(x, w, y, n, threads):
    assert threads >= n
    y[:n] = x[:n] + w[0]
"""
PLAN = Plan(
    schema_version=1,
    flavour=Flavour.DEVICE,
    symbols=(Symbol(name="n", input=0, axis=0),),
    storages=(Storage(bytes=("*", 4, "n"), output=True),),
    tensors=(
        Tensor(place=Place.INPUT, index=0, dtype="float32", shape=("n",)),
        Tensor(place=Place.WEIGHT, index=0, dtype="float32", shape=(1,)),
        Tensor(place=Place.STORAGE, index=0, dtype="float32", shape=("n",)),
    ),
    inputs=(0,),
    weights=(1,),
    outputs=(2,),
    kernels=(
        Kernel(
            name="add",
            file="kernels.py",
            parameters=(
                Parameter(dtype="float32"),
                Parameter(dtype="float32"),
                Parameter(dtype="float32", written=True),
                Parameter(dtype="int64", buffer=False),
            ),
            threads=(4, 1, 1),
        ),
    ),
    steps=(Step(kernel=0, arguments=(0, 1, 2, Scalar("int64", "n")), grid=(("//", ("+", "n", 3), 4), 1, 1)),),
)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("python_device", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "python_device", module)
    spec.loader.exec_module(module)
    entry = SimpleNamespace(load=lambda: module.API)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [entry] if group == "assay.devices" else []
    )
    devices.device_apis.cache_clear()
    yield module
    devices.device_apis.cache_clear()


def test_it_is_found_behind_the_drivers_of_assay(example: Any) -> None:
    assert list(devices.device_apis())[-1] == "python"
    assert devices.device_apis()["python"].find().devices[0].name == "Python"


def test_it_runs_a_plan(example: Any) -> None:
    device = devices.open_device("python")
    calls = DeviceCalls(PLAN, device, {"kernels.py": CODE}, [np.array([5], np.float32)], ["float32"])
    for size in (6, 1, 0):
        x = np.arange(size, dtype=np.float32)
        np.testing.assert_array_equal(calls.call([x])[0], x + 5)
    assert [name for name, _ in calls.times([np.zeros(3, np.float32)])] == ["add"]
    calls.close()
    assert device.free_bytes == example.MEMORY


def test_its_errors_are_assays(example: Any) -> None:
    device = devices.open_device("python")
    with pytest.raises(CapacityError):
        device.allocate(2 * example.MEMORY)
    with pytest.raises(DeviceError, match="no kernel add"):
        device.compile(PLAN.kernels, {"kernels.py": b""})
    with pytest.raises(DeviceError, match="no Python device 1"):
        devices.open_device("python", 1)
