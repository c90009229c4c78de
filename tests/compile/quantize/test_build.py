"""Builds with a scheme: what is verified, what the manifest says, and how large the weights are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.reverify import verify_again
from assay.compile.schemes import find_scheme
from assay.models.registry import find_model

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


@pytest.mark.parametrize("scheme", ["int8", "int4", "int4-sym"])
def test_weights_take_the_bytes_that_the_scheme_implies(scheme: str, layers: Path, tmp_path: Path) -> None:
    spec = find_model(str(layers))
    result = build_artifact(spec, target="x86-64-v3", scheme=scheme, cache=tmp_path)
    manifest = result.manifest
    implied = sum(find_scheme(scheme).stored_bytes(shape[::-1]) for shape in SHAPES.values())
    assert manifest.quantization is not None
    assert manifest.quantization.tensor_bytes == implied
    assert sum(weight.bytes for weight in manifest.weights) == pytest.approx(implied, rel=0.02)
    (error,) = manifest.quantization.errors
    assert error.sqnr is not None
    assert error.sqnr > (25 if scheme == "int8" else 10)
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
