from __future__ import annotations

from dataclasses import replace

import pytest

from assay.errors import CapacityError, CpuFeatureError, DeviceError, UnknownNameError, UsageError
from assay.registry import Registry
from assay.runtime import devices as devices_package
from assay.runtime.cpu import detect_cpu
from assay.runtime.devices import DeviceApi, DeviceInfo, Found, cuda, metal, selection
from assay.runtime.devices.selection import Wanted, choose_device, fitting_device, parse_device
from assay.runtime.levels import choose
from assay.runtime.manifest import Workspace

GB = 10**9
SMALL = DeviceInfo(api="first", index=0, name="Small", architecture="a1", free_memory=GB)
LARGE = DeviceInfo(api="first", index=1, name="Large", architecture="a2", free_memory=8 * GB)
SECOND = DeviceInfo(api="second", index=0, name="Second", features=frozenset({"int64"}))
PLAYED = DeviceInfo(api="played", index=0, name="Played", emulated=True)


@pytest.fixture
def found(monkeypatch):
    """What each API finds, which tests may change; the order is that of preference."""
    devices = {
        "first": Found(devices=(SMALL, LARGE)),
        "second": Found(devices=(SECOND,)),
        "played": Found(devices=(PLAYED,)),
        "absent": Found(reason="no driver is installed", remedy="Install it."),
    }
    registry: Registry[DeviceApi] = Registry("device API")
    for name in devices:
        api = DeviceApi(name=name, description=name, find=lambda name=name: devices[name], open=None)
        registry.add(name, api)
    for module in (selection, devices_package):
        monkeypatch.setattr(module, "device_apis", lambda: registry)
    monkeypatch.delenv(selection.DEVICE_VARIABLE, raising=False)
    return devices


@pytest.fixture
def manifest_of(make_manifest, make_level):
    def make(*names, workspace=0):
        """A manifest with levels for ``cpu`` or for APIs, each with that much memory for itself."""
        made = []
        for name in names:
            level = make_level(name)
            if name != "cpu":
                level = _replaced(level, name)
            memory = Workspace(default_bytes=workspace, maximum_bytes=workspace)
            made.append(_with(level, workspace=memory))
        return make_manifest(levels=tuple(made))

    return make


def _with(struct, **changes):
    import msgspec

    return msgspec.structs.replace(struct, **changes)


def _replaced(level, api):
    target = _with(level.target, api=api, cpu="any", triple=api, features=())
    return _with(level, target=target)


def test_devices_come_before_the_cpu_in_the_order_of_the_apis(found, manifest_of):
    choice = choose(manifest_of("cpu", "second", "first", "played"))
    assert (choice.level.target.name, choice.device) == ("first", SMALL)


def test_what_is_fallen_back_from_is_said(found, manifest_of):
    found["first"] = Found(reason="no driver is installed")
    choice = choose(manifest_of("cpu", "first", "absent"))
    assert choice.level.target.name == "cpu"
    assert choice.device is None
    assert choice.passed_over == ("first: no driver is installed", "absent: no driver is installed")


def test_devices_that_the_cpu_plays_come_last(found, manifest_of):
    assert choose(manifest_of("cpu", "played")).level.target.name == "cpu"
    assert choose(manifest_of("played")).device == PLAYED


def test_memory_decides(found, manifest_of):
    assert choose(manifest_of("first", workspace=2 * GB)).device == LARGE
    choice = choose(manifest_of("cpu", "first", workspace=9 * GB))
    assert choice.level.target.name == "cpu"
    assert "Large has 8,000 MB free of the 9,0" in choice.passed_over[0]
    with pytest.raises(CapacityError, match="memory"):
        choose(manifest_of("cpu", "first", workspace=9 * GB), device="first")


def test_what_is_asked_for_is_taken_or_refused(found, manifest_of):
    everything = manifest_of("cpu", "first", "second", "absent")
    assert choose(everything, device="second").device == SECOND
    assert choose(everything, device="first:1").device == LARGE
    assert choose(everything, device="cpu").level.target.name == "cpu"
    assert choose(everything, device="auto").device == SMALL
    with pytest.raises(DeviceError, match="no driver is installed") as raised:
        choose(everything, device="absent")
    assert raised.value.hint == "Install it."
    with pytest.raises(DeviceError, match="no device 7"):
        choose(everything, device="first:7")
    with pytest.raises(DeviceError, match="no code for played"):
        choose(everything, device="played")
    with pytest.raises(DeviceError, match="no code for a CPU"):
        choose(manifest_of("first"), device="cpu")
    with pytest.raises(UnknownNameError, match="secnd"):
        choose(everything, device="secnd")
    with pytest.raises(UsageError):
        choose(everything, device="first:x")


def test_nothing_that_runs(found, manifest_of):
    with pytest.raises(CpuFeatureError, match="no driver is installed"):
        choose(manifest_of("absent", "missing"), cpu=replace(detect_cpu(), name="Fake"))


def test_features_and_architecture_are_compared(found):
    assert fitting_device("second", features=["int64"]) == SECOND
    assert fitting_device("second", features=["f16"]) == "Second lacks f16"
    assert fitting_device("first", architecture="a2") == LARGE
    assert fitting_device("first", architecture="a3") == "Small is a1, not a3; Large is a2, not a3"
    assert "no driver for" in str(fitting_device("unheard-of"))
    with pytest.raises(DeviceError, match="lacks f16"):
        choose_device("second", features=["f16"])


@pytest.mark.parametrize(
    ("runs", "code", "device", "expected"),
    [
        (cuda.API.runs, "sm_80", "sm_80", True),
        (cuda.API.runs, "sm_80", "sm_120", True),
        (cuda.API.runs, "sm_90", "sm_89", False),
        (cuda.API.runs, "sm_90", "", False),
        (metal.API.runs, "apple7", "apple9", True),
        (metal.API.runs, "apple8", "apple7", False),
    ],
)
def test_code_runs_on_later_devices(runs, code, device, expected):
    assert runs(code, device) is expected


def test_devices_as_they_are_written():
    assert parse_device("auto") is None
    assert parse_device("cpu") == Wanted(api="cpu")
    assert parse_device("cuda:1") == Wanted(api="cuda", index=1)
    assert parse_device(" opencl ") == Wanted(api="opencl")
