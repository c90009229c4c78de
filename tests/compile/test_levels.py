"""Code of levels that runs: on this CPU if it has them, on an emulated one that has a level and no more."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.targets import targets
from assay.compile.verify import Case, read_outputs, save_inputs
from assay.models.inputs import make_inputs
from assay.models.registry import find_model
from assay.runtime import load
from assay.runtime.cpu import missing_features


@pytest.mark.slow
def test_x86_64_v2_runs_on_a_nehalem_and_x86_64_v3_does_not(
    perceptron_file: Path, needs_avx2: None, cache: Path, tmp_path: Path
) -> None:
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs the emulated machine that ci/emulator.sh installs")
    spec = find_model(str(perceptron_file))
    path = build_artifact(spec, target="x86-64-v2,x86-64-v3", cache=cache).path
    inputs = dict(make_inputs(spec, {"batch": 7}, seed=0))
    expected = load(path, level="x86-64-v2", threads=1).run(inputs)
    case = Case(sizes={"batch": 7}, inputs=inputs, expected=expected)
    save_inputs(tmp_path, [case])

    def run(level: str) -> int:
        worker = [sys.executable, "-m", "assay.compile.verify_worker", str(path), level, str(tmp_path), "1"]
        return subprocess.run(
            [emulator, "-cpu", "Nehalem", *worker], capture_output=True, timeout=500, check=False
        ).returncode

    assert run("x86-64-v2") == 0
    (actual,) = read_outputs(tmp_path, [case])
    for name, array in expected.items():
        assert (actual[name] == array).all()
    assert run("x86-64-v3") == -signal.SIGILL


@pytest.mark.parametrize("level", ["x86-64-v4", "x86-64-v4-vnni", "x86-64-v4-amx"])
@pytest.mark.parametrize("depth", [64, 100, 103])
def test_integer_products_are_exact_on_a_cpu_that_has_the_level(
    level: str, depth: int, make_model: Callable[..., onnx.ModelProto], cache: Path, tmp_path: Path
) -> None:
    missing = missing_features(targets()[level].features)
    if missing:
        pytest.skip(f"needs AVX-512 hardware with {', '.join(sorted(missing))}")
    generator = np.random.default_rng(depth)
    weights = generator.integers(-128, 128, (depth, 70), dtype=np.int8)
    model = make_model(
        [onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        {"x": (["n", depth], "uint8")},
        {"y": (["n", 70], "int32")},
        {"w": weights},
    )
    path = tmp_path / "product.onnx"
    onnx.save_model(model, path)
    result = build_artifact(find_model(str(path)), target=level, cache=cache)
    assert [each.executed for each in result.manifest.levels] == ["native"]
    artifact = load(result.path, threads=1)
    # Rows of one tile, of a tile and a part, of several blocks; few rows have another kernel.
    for rows in (1, 5, 16, 17, 50, 64):
        x = generator.integers(0, 256, (rows, depth), dtype=np.uint8)
        np.testing.assert_array_equal(artifact.run({"x": x})["y"], x.astype(np.int64) @ weights)
