from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import assay.compile.emulation
import assay.compile.targets.native as native
import assay.runtime.cpu as cpu
from assay.compile.build import build_artifact
from assay.compile.emulation import missing_parts
from assay.compile.reverify import verify_emulated
from assay.errors import CpuFeatureError, VerificationError
from assay.models.registry import find_model
from assay.runtime.artifact import open_artifact


@pytest.fixture
def without_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cpu.detect_cpu()
    features = frozenset(feature for feature in found.features if not feature.startswith("avx512"))
    fake = dataclasses.replace(found, features=features)
    monkeypatch.setattr(cpu, "detect_cpu", lambda: fake)
    monkeypatch.setattr(native, "detect_cpu", lambda: fake)


@pytest.fixture
def built(without_avx512: None, needs_avx2: None, perceptron_file: Path, cache: Path, tmp_path: Path) -> Any:
    """The specification of the test model and an artifact of it for x86-64-v3 and x86-64-v4."""
    spec = find_model(str(perceptron_file))

    def build(**options: Any) -> Path:
        return build_artifact(
            spec, target="x86-64-v3,x86-64-v4", cache=cache, output=tmp_path / "out", **options
        ).path

    return spec, build


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts something else in the place of the emulated machine."""

    def install(run: Callable[..., Any]) -> None:
        monkeypatch.setattr(assay.compile.emulation, "run_emulated", run)
        monkeypatch.setattr(assay.compile.emulation, "describe_emulator", lambda: "Pretended 1.0")

    return install


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "one file"])
def test_what_ran_in_an_emulated_machine_is_noted(
    built: Any, machine: Any, cache: Path, packed: bool
) -> None:
    spec, build = built
    path = build(packed=packed)
    before = open_artifact(path).manifest
    asked = []

    def run(folder: Path, cases: Any, *, level: str, timeout: float) -> Any:
        asked.append((level, timeout, open_artifact(folder).manifest == before))
        return [case.expected for case in cases]

    machine(run)
    found = verify_emulated(path, spec, timeout=9.0, cache=cache)
    assert asked == [("x86-64-v4", 9.0, True)]
    after = open_artifact(path).manifest
    assert [level.executed for level in after.levels] == ["native", "emulated"]
    assert after.levels[0] == before.levels[0]
    assert "Executed under Pretended 1.0" in (after.levels[1].verification.note or "")
    assert list(after.levels[1].verification.cases) == found["x86-64-v4"]
    assert (after.weights, after.files) == (before.weights, before.files)


def test_wrong_outputs_leave_the_artifact_as_it_was(built: Any, machine: Any, cache: Path) -> None:
    spec, build = built
    path = build()
    before = open_artifact(path).manifest
    machine(
        lambda folder, cases, **_: [{n: a + a.dtype.type(1) for n, a in c.expected.items()} for c in cases]
    )
    with pytest.raises(VerificationError, match="differs from ONNX Runtime's"):
        verify_emulated(path, spec, timeout=9.0, cache=cache)
    assert open_artifact(path).manifest == before


def test_a_level_that_cannot_be_emulated(built: Any, cache: Path) -> None:
    spec, build = built
    path = build()
    with pytest.raises(CpuFeatureError, match="no level 'x86-64-v5'"):
        verify_emulated(path, spec, level="x86-64-v5", timeout=9.0, cache=cache)


@pytest.fixture
def quantized_file(make_model: Callable[..., onnx.ModelProto], tmp_path: Path) -> Path:
    """A product of 8-bit integers, then one of float32."""
    generator = np.random.default_rng(0)
    node = onnx.helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        node("MatMul", ["xd", "wd"], ["p"]),
        node("Relu", ["p"], ["h"]),
        node("MatMul", ["h", "v"], ["y"]),
    ]
    weights = {
        "xs": np.float32(0.05),
        "xz": np.uint8(128),
        "w": generator.integers(-127, 128, (68, 100)).astype(np.int8),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
        "v": generator.standard_normal((100, 24)).astype(np.float32) / 10,
    }
    path = tmp_path / "quantized.onnx"
    onnx.save_model(make_model(nodes, {"x": ["batch", 68]}, {"y": ["batch", 24]}, weights), path)
    return path


@pytest.mark.slow
def test_avx512_and_vnni_code_runs_in_the_emulated_machine(
    without_avx512: None, needs_avx2: None, quantized_file: Path, cache: Path, tmp_path: Path
) -> None:
    """The whole artifact on the runtime, under Bochs; minutes."""
    if missing_parts():
        pytest.skip("needs the emulated machine that ci/emulator.sh installs")
    spec = find_model(str(quantized_file))
    path = build_artifact(spec, target="x86-64-v3,x86-64-v4-vnni", cache=cache, output=tmp_path / "out").path
    found = verify_emulated(path, spec, timeout=3000, cache=cache)
    assert list(found) == ["x86-64-v4-vnni"]
    levels = open_artifact(path).manifest.levels
    assert [level.executed for level in levels] == ["native", "emulated"]
    assert "Bochs" in (levels[1].verification.note or "")
    assert {"batch": 1} in [case.sizes for case in levels[1].verification.cases]
    assert max(case.max_absolute_error for case in levels[1].verification.cases) < 1e-4
