from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import assay.runtime
from assay.ci import device_suite
from assay.errors import DeviceError
from assay.registry import Registry
from assay.runtime.devices import DeviceApi, DeviceInfo, Found, selection

GPU = DeviceInfo(api="fast", index=0, name="Fast GPU", features=frozenset({"f16"}))


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared model whose output is its input times two, and a device for it."""
    registry: Registry[DeviceApi] = Registry("device API")
    api = DeviceApi(name="fast", description="Fast", find=lambda: Found(devices=(GPU,)), open=lambda _: None)
    registry.add("fast", api)
    monkeypatch.setattr(selection, "device_apis", lambda: registry)
    place = tmp_path / "suite" / "twice"
    place.mkdir(parents=True)
    x = np.arange(6, dtype=np.float32)
    np.savez(place / "inputs0.npz", x=x)
    np.savez(place / "expected0.npz", y=2 * x)
    (place / "case.json").write_text(json.dumps({"sizes": [{"n": 6}], "absolute": 1e-3, "relative": 0}))
    return tmp_path / "suite"


def model(function: Any) -> Any:
    level = SimpleNamespace(target=SimpleNamespace(name="fast-1"))
    return lambda path, device: SimpleNamespace(level=level, run=lambda inputs: {"y": function(inputs["x"])})


def test_what_agrees_is_written_with_times(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assay.runtime, "load", model(lambda x: 2 * x + 1e-4), raising=False)
    output = tmp_path / "found.json"
    assert device_suite.main(["run", str(suite), "--device", "fast", "-o", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["device"]["name"] == "Fast GPU"
    (case,) = found["models"][0]["cases"]
    assert case["within_tolerance"]
    assert case["max_absolute_error"] == pytest.approx(1e-4, rel=0.1)
    assert len(case["seconds"]) == 20
    assert "twice (fast-1): agrees" in capsys.readouterr().out


@pytest.mark.parametrize("function", [lambda x: 2 * x + 1, lambda x: x * np.float32(np.nan)])
def test_what_differs_fails(suite: Path, monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    monkeypatch.setattr(assay.runtime, "load", model(function), raising=False)
    assert device_suite.main(["run", str(suite), "--device", "fast"]) == 1


def test_a_model_that_does_not_run_is_told(
    suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, device: str) -> None:
        raise DeviceError("The device was lost.")

    monkeypatch.setattr(assay.runtime, "load", refuse, raising=False)
    assert device_suite.main(["run", str(suite), "--device", "fast"]) == 1
    assert "did not run: The device was lost." in capsys.readouterr().out


def test_bad_input_is_one_clear_error(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        [str(tmp_path), "--device", "fast"],
        [str(suite), "--device", "cpu"],
        [str(suite), "--device", "fast:9"],
        [str(suite), "--device", "quick"],
    ):
        assert device_suite.main(["run", *arguments]) > 1
        assert capsys.readouterr().err.startswith("error: ")
