from __future__ import annotations

import json

import pytest

from assay.cli.main import main
from assay.registry import Registry
from assay.runtime.devices import DeviceApi, DeviceInfo, Found

GPU = DeviceInfo(
    api="fast", index=1, name="Fast GPU", architecture="f1", total_memory=8_000_000_000,
    free_memory=6_500_000_000, driver="Fast 1.0", features=frozenset({"f16", "int64"}),
)  # fmt: skip
ABSENT = Found(reason="no driver is installed", remedy="Install it.")


@pytest.fixture(autouse=True)
def _two_apis(monkeypatch):
    registry: Registry[DeviceApi] = Registry("device API")
    for name, found in (("fast", Found(devices=(GPU,))), ("absent", ABSENT)):
        api = DeviceApi(name=name, description=name.title(), find=lambda found=found: found, open=None)
        registry.add(name, api)
    monkeypatch.setattr("assay.runtime.devices.device_apis", lambda: registry)


def test_what_is_there_and_what_is_missing(capsys):
    assert main(["devices"], standalone_mode=False) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("fast:1", "Fast GPU", "f1", "8.0 GB, 6.5 GB", "no driver is installed", "Install it."):
        assert text in shown


def test_json(capsys):
    assert main(["devices", "--json"], standalone_mode=False) == 0
    fast, absent = json.loads(capsys.readouterr().out)
    assert fast["devices"][0]["free_memory"] == 6_500_000_000
    assert fast["devices"][0]["features"] == ["f16", "int64"]
    assert absent == {
        "api": "absent", "description": "Absent", "devices": [],
        "reason": "no driver is installed", "remedy": "Install it.",
    }  # fmt: skip


def test_quiet_names_devices_as_they_are_asked_for(capsys):
    assert main(["devices", "--quiet"], standalone_mode=False) == 0
    assert capsys.readouterr().out == "fast:1\n"
