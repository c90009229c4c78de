"""Code of levels that runs: on this CPU if it has them, on an emulated one that has a level and no more."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def integer_product(rows: int | str, weights: Any, make_model: Callable[..., onnx.ModelProto]) -> Any:
    """x [rows, K] uint8 times int8 weights [K, N]."""
    depth, cols = weights.shape
    return make_model(
        [onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        {"x": ([rows, depth], "uint8")},
        {"y": ([rows, cols], "int32")},
        {"w": weights},
    )


def integer_convolution(
    size: int, weights: Any, stride: int, make_model: Callable[..., onnx.ModelProto]
) -> Any:
    """x [2, C, size, size] uint8 with zero point 7, int8 filters OIHW, one pixel of padding."""
    extent = (size - 1) // stride + 1
    return make_model(
        [
            onnx.helper.make_node(
                "ConvInteger", ["x", "w", "zero"], ["y"], pads=[1, 1, 1, 1], strides=[stride, stride]
            )
        ],
        {"x": ([2, weights.shape[1], size, size], "uint8")},
        {"y": ([2, weights.shape[0], extent, extent], "int32")},
        {"w": weights, "zero": np.uint8(7)},
    )


def needs_level(level: str) -> None:
    missing = missing_features(targets()[level].features)
    if missing:
        pytest.skip(f"needs AVX-512 hardware with {', '.join(sorted(missing))}")


def built_natively(model: onnx.ModelProto, level: str, cache: Path, tmp_path: Path) -> Any:
    path = tmp_path / "product.onnx"
    onnx.save_model(model, path)
    result = build_artifact(find_model(str(path)), target=level, cache=cache)
    assert [each.executed for each in result.manifest.levels] == ["native"]
    return load(result.path, threads=1)


AVX_512 = ["x86-64-v4", "x86-64-v4-vnni", "x86-64-v4-amx"]


@pytest.mark.parametrize("level", AVX_512)
@pytest.mark.parametrize("depth", [20, 103, 320])
def test_integer_products_are_exact_on_a_cpu_that_has_the_level(
    level: str, depth: int, make_model: Callable[..., onnx.ModelProto], cache: Path, tmp_path: Path
) -> None:
    needs_level(level)
    generator = np.random.default_rng(depth)
    weights = generator.integers(-128, 128, (depth, 70), dtype=np.int8)
    # Few rows have another kernel than those of two blocks, one of which is not whole.
    for rows in (5, 49):
        artifact = built_natively(integer_product(rows, weights, make_model), level, cache, tmp_path)
        x = generator.integers(0, 256, (rows, depth), dtype=np.uint8)
        np.testing.assert_array_equal(artifact.run({"x": x})["y"], x.astype(np.int64) @ weights)


@pytest.mark.parametrize("level", AVX_512)
@pytest.mark.parametrize(("channels", "size", "stride"), [(3, 9, 2), (32, 7, 1), (40, 12, 2)])
def test_integer_convolutions_are_exact_on_a_cpu_that_has_the_level(
    level: str,
    channels: int,
    size: int,
    stride: int,
    make_model: Callable[..., onnx.ModelProto],
    cache: Path,
    tmp_path: Path,
) -> None:
    needs_level(level)
    generator = np.random.default_rng(channels)
    weights = generator.integers(-128, 128, (50, channels, 3, 3), dtype=np.int8)
    model = integer_convolution(size, weights, stride, make_model)
    artifact = built_natively(model, level, cache, tmp_path)
    x = generator.integers(0, 256, (2, channels, size, size), dtype=np.uint8)
    padded = np.pad(x.astype(np.int64) - 7, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    expected = np.einsum("nchwij,ocij->nohw", windows, weights.astype(np.int64))
    np.testing.assert_array_equal(artifact.run({"x": x})["y"], expected)
