"""Launch plans on a device: what is uploaded, launched, downloaded and given back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.errors import ArtifactError, CapacityError, DeviceError, InterfaceError, UsageError
from assay.runtime.devices.null import NullDevice
from assay.runtime.drivers.plan_device import DeviceCalls
from assay.runtime.plan import (
    Flavour,
    Kernel,
    Parameter,
    Place,
    Plan,
    Scalar,
    Step,
    Storage,
    Symbol,
    Tensor,
)

FILES = {"lib/kernels.txt": b""}


def tensor(place: Place, index: int, dtype: Any = "int32") -> Tensor:
    return Tensor(place=place, index=index, dtype=dtype, shape=("n",))


# y = x + w[0], then x += 1 in place; x is int64 for the caller, and int32 on the device.
PLAN = Plan(
    schema_version=1,
    flavour=Flavour.DEVICE,
    symbols=(Symbol(name="n", input=0, axis=0),),
    storages=(Storage(bytes=("*", "n", 4), output=True),),
    tensors=(
        tensor(Place.INPUT, 0),
        Tensor(place=Place.WEIGHT, index=0, dtype="uint8", shape=(3,)),
        tensor(Place.STORAGE, 0),
    ),
    inputs=(0,),
    weights=(1,),
    outputs=(2, 0),
    written_inputs=(0,),
    kernels=(
        Kernel(
            name="add",
            file="lib/kernels.txt",
            parameters=(
                Parameter(dtype="int32"),
                Parameter(dtype="uint8"),
                Parameter(dtype="int32", written=True),
                Parameter(dtype="int32", buffer=False),
            ),
            threads=(1, 1, 1),
        ),
        Kernel(
            name="increase",
            file="lib/kernels.txt",
            parameters=(Parameter(dtype="int32", written=True),),
            threads=(1, 1, 1),
        ),
    ),
    steps=(
        Step(kernel=0, arguments=(0, 1, 2, Scalar("int32", "n")), grid=("n", 1, 1)),
        Step(kernel=1, arguments=(0,), grid=("n", 1, 1)),
    ),
)
WEIGHTS = [np.array([5, 6, 7], np.uint8)]


def add(x: Any, w: Any, y: Any, n: int) -> None:
    y[:n] = x[:n] + w[0]


def increase(x: Any) -> None:
    x += 1


def device(**options: Any) -> NullDevice:
    return NullDevice({"add": add, "increase": increase}, **options)


def calls(on: NullDevice) -> DeviceCalls:
    return DeviceCalls(PLAN, on, FILES, WEIGHTS, ["int64", "int64"])


@pytest.mark.parametrize("size", [4, 1, 0])
def test_outputs_and_written_inputs(size: int) -> None:
    x = np.arange(size, dtype=np.int64)
    before = x.copy()
    y, passed = calls(device()).call([x])
    assert y.dtype == passed.dtype == np.int64
    np.testing.assert_array_equal(y, before + 5)
    np.testing.assert_array_equal(x, before + 1)
    np.testing.assert_array_equal(passed, before + 1)


def test_memory_is_kept_for_few_shapes_and_given_back() -> None:
    on = device()
    ready = calls(on)
    weights = on.allocated
    for size in range(1, 20):
        ready.call([np.zeros(size, np.int64)])
    assert on.allocated - weights <= 4 * 2 * 4 * 19
    ready.close()
    assert on.allocated == 0


def test_too_little_memory_for_a_second_shape_frees_the_first() -> None:
    on = device(memory=4 + 2 * 4 * 100)
    ready = calls(on)
    ready.call([np.zeros(60, np.int64)])
    y, _ = ready.call([np.zeros(100, np.int64)])
    assert y.shape == (100,)
    with pytest.raises(CapacityError):
        ready.call([np.zeros(101, np.int64)])
    y, _ = ready.call([np.zeros(10, np.int64)])
    assert y.tolist() == [5] * 10


def test_times_name_every_launch() -> None:
    assert [name for name, _ in calls(device()).times([np.zeros(2, np.int64)])] == ["add", "increase"]


def test_integers_that_do_not_fit() -> None:
    with pytest.raises(InterfaceError, match="do not fit"):
        calls(device()).call([np.array([2**40])])


def test_a_lost_device() -> None:
    on = device()
    ready = calls(on)
    on.lose()
    with pytest.raises(DeviceError, match="lost"):
        ready.call([np.zeros(2, np.int64)])


def test_what_does_not_belong_together() -> None:
    with pytest.raises(ArtifactError, match="other weights"):
        DeviceCalls(PLAN, device(), FILES, [], ["int64", "int64"])
    with pytest.raises(DeviceError, match="no file"):
        DeviceCalls(PLAN, device(), {}, WEIGHTS, ["int64", "int64"])


def test_an_input_that_is_kept_is_not_copied() -> None:
    on = device()
    ready = calls(on)
    ready.keep({0: np.array([1, 2, 3], np.int64)})
    shape_only = np.zeros(3, np.int64)
    ready.call([shape_only])
    y, _ = ready.call([shape_only])
    assert y.tolist() == [7, 8, 9]
    assert shape_only.tolist() == [0, 0, 0]
    found = np.empty(3, np.int64)
    ready.fetch(0, found)
    assert found.tolist() == [3, 4, 5]
    ready.store(0, np.array([10, 20, 30], np.int64))
    ready.call([shape_only])
    ready.fetch(0, found)
    assert found.tolist() == [11, 21, 31]
    with pytest.raises(UsageError, match="already"):
        ready.keep({0: shape_only})
    ready.close()
    assert on.allocated == 0
