"""Builds with a scheme: what is verified, what the manifest says, and how large the weights are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.reverify import verify_again
from assay.compile.schemes import find_scheme
from assay.errors import UsageError
from assay.models.registry import find_model
from assay.runtime.recording import record_inputs

pytestmark = pytest.mark.slow

SHAPES = {"up": (512, 1024), "down": (1024, 512)}


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``y = relu(x @ up) @ down`` with x [rows, 512]."""
    generator = np.random.default_rng(0)
    tensors = [
        onnx.numpy_helper.from_array((generator.standard_normal(shape) / 32).astype(np.float32), name)
        for name, shape in SHAPES.items()
    ]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "up"], ["h"], name="first"),
            onnx.helper.make_node("Relu", ["h"], ["r"], name="relu"),
            onnx.helper.make_node("MatMul", ["r", "down"], ["y"], name="second"),
        ],
        "main",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", 512])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", 512])],
        tensors,
    )
    path = tmp_path_factory.mktemp("layers") / "layers.onnx"
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    onnx.save_model(made, path)
    return path


@pytest.mark.parametrize("scheme", ["int8", "int4", "int4-sym", "int8-dynamic"])
def test_weights_take_the_bytes_that_the_scheme_implies(scheme: str, layers: Path, tmp_path: Path) -> None:
    spec = find_model(str(layers))
    result = build_artifact(spec, target="x86-64-v3", scheme=scheme, cache=tmp_path)
    manifest = result.manifest
    implied = sum(find_scheme(scheme).stored_bytes(shape[::-1]) for shape in SHAPES.values())
    assert manifest.quantization is not None
    assert manifest.quantization.tensor_bytes == implied
    # Kernels of int8-dynamic have the order of their steps beside the codes.
    slack = 0.03 if scheme == "int8-dynamic" else 0.02
    assert sum(weight.bytes for weight in manifest.weights) == pytest.approx(implied, rel=slack)
    (error,) = manifest.quantization.errors
    assert error.sqnr is not None
    assert error.sqnr > (10 if "int4" in scheme else 25)
    assert manifest.scheme == scheme
    assert verify_again(result.path, spec, cache=tmp_path)


def test_overrides_are_part_of_the_scheme_and_of_the_cache_key(layers: Path, tmp_path: Path) -> None:
    spec = find_model(str(layers))
    plain = build_artifact(spec, target="x86-64-v3", scheme="f32", cache=tmp_path)
    result = build_artifact(spec, target="x86-64-v3", scheme="f32", overrides=["up=int8"], cache=tmp_path)
    assert (plain.manifest.scheme, result.manifest.scheme) == ("f32", "f32,up=int8")
    assert plain.manifest.quantization is None
    assert plain.path != result.path
    assert verify_again(result.path, spec, cache=tmp_path)


def test_a_build_calibrates_on_recorded_inputs(layers: Path, tmp_path: Path) -> None:
    spec = find_model(str(layers))
    generator = np.random.default_rng(2)
    for _ in range(3):
        record_inputs(tmp_path / "small", {"x": generator.uniform(-0.1, 0.1, (9, 512)).astype(np.float32)})
    options = {"target": "x86-64-v3", "scheme": "int8-static"}
    plain = build_artifact(spec, **options, cache=tmp_path / "cache")
    recorded = build_artifact(spec, **options, calibration=tmp_path / "small", cache=tmp_path / "cache")
    again = build_artifact(spec, **options, calibration=tmp_path / "small", cache=tmp_path / "cache")
    assert (plain.cached, recorded.cached, again.cached) == (False, False, True)
    assert plain.manifest.quantization is not None
    assert recorded.manifest.quantization is not None
    # Representative inputs are wider than what was recorded: much of them is clipped.
    assert recorded.manifest.quantization.errors[0].sqnr < plain.manifest.quantization.errors[0].sqnr
    assert plain.manifest.quantization.calibration is None
    assert len(recorded.manifest.quantization.calibration or "") == 64
    assert verify_again(recorded.path, spec, cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="not at hand"):
        verify_again(recorded.path, spec, cache=tmp_path / "other")


def test_calibration_is_for_schemes_that_calibrate(layers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not calibrate"):
        build_artifact(find_model(str(layers)), scheme="int8", calibration=tmp_path, cache=tmp_path)
