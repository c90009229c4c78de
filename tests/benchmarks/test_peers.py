from __future__ import annotations

import importlib.util

import pytest

from assay.benchmarks.peers import ModelFiles, engines
from assay.errors import UnknownNameError


def files(tmp_path, name="tiny", canonical=None) -> ModelFiles:
    return ModelFiles(name=name, artifact=tmp_path, canonical=canonical)


def test_the_engines_by_name():
    assert {"assay", "onnxruntime", "torch"} <= set(engines())
    for name, engine in engines().items():
        assert engine.name == name
        assert engine.note


def test_an_unknown_engine_suggests_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        engines()["onnxruntme"]
    assert caught.value.hint == "Did you mean onnxruntime?"


def test_onnx_runtime_needs_the_canonical_model(tmp_path):
    engine = engines()["onnxruntime"]
    assert "not known" in (engine.unavailable(files(tmp_path)) or "")
    assert engine.unavailable(files(tmp_path, canonical=tmp_path / "m.onnx")) is None


def test_a_package_that_is_missing_is_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ort = engines()["onnxruntime"].unavailable(files(tmp_path, canonical=tmp_path))
    assert ort == "onnxruntime is not installed (extra: compile)"
    torch = engines()["torch"].unavailable(files(tmp_path, "resnet18"))
    assert torch == "torch is not installed (extra: torch)"


@pytest.mark.parametrize("name", ["silero-vad", "unregistered"])
def test_torch_needs_a_model_that_is_defined_in_it(tmp_path, name):
    reason = engines()["torch"].unavailable(files(tmp_path, name))
    assert reason == f"{name} is not defined in PyTorch"


def test_sizes_are_those_of_what_is_loaded(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "lib").mkdir(parents=True)
    (folder / "manifest.json").write_bytes(b"12345")
    (folder / "lib" / "model.so").write_bytes(b"1234567")
    onnx = tmp_path / "canonical.onnx"
    onnx.write_bytes(b"123")
    (tmp_path / "canonical.bin").write_bytes(b"1234")
    found = ModelFiles(name="tiny", artifact=folder, canonical=onnx)
    assert engines()["assay"].size_bytes(found) == 12
    assert engines()["onnxruntime"].size_bytes(found) == 7
    assert engines()["torch"].size_bytes(found) is None
    packed = ModelFiles(name="tiny", artifact=onnx, canonical=None)
    assert engines()["assay"].size_bytes(packed) == 3
