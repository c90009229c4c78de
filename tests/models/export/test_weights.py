from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.errors import ModelError
from assay.models.export import weights
from assay.models.export.safe_load import load_safely


@pytest.fixture
def wide(linear: onnx.ModelProto) -> onnx.ModelProto:
    """``linear`` with tensors of 40,000 and 12 bytes, the first not stored as raw bytes."""
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    linear.graph.initializer.append(
        onnx.helper.make_tensor("wide", onnx.TensorProto.FLOAT, [100, 100], values.tolist())
    )
    return linear


def test_bytes_are_counted_from_shapes(wide: onnx.ModelProto) -> None:
    assert weights.weight_bytes(wide) == 4 * (4 * 3 + 3 + 100 * 100)


def test_large_weights_become_inputs(wide: onnx.ModelProto) -> None:
    light = weights.without_weights(wide)
    assert {tensor.name for tensor in light.graph.initializer} == {"w", "b"}
    assert {value.name for value in light.graph.input} == {"x", "wide"}
    onnx.checker.check_model(light)
    assert len(wide.graph.initializer) == 3


def test_small_models_are_one_file(wide: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    digests = weights.save(wide, path, "model.bin")
    assert digests == {"model.onnx": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert onnx.load_model(path) == wide
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_large_models_keep_their_weights_apart(
    wide: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "INLINE_BYTES", 1000)
    before = wide.SerializeToString(deterministic=True)
    path = tmp_path / "model.onnx"
    digests = weights.save(wide, path, "model.bin")
    assert digests == {
        item.name: hashlib.sha256(item.read_bytes()).hexdigest() for item in tmp_path.iterdir()
    }
    assert wide.SerializeToString(deterministic=True) == before
    assert path.stat().st_size < 4000
    assert (tmp_path / "model.bin").stat().st_size == 40_000
    loaded = load_safely(path).model
    for wanted, found in zip(wide.graph.initializer, loaded.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(wanted), onnx.numpy_helper.to_array(found))


def test_a_weight_of_the_wrong_size_is_not_saved(
    wide: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "INLINE_BYTES", 1000)
    wide.graph.initializer[2].ClearField("float_data")
    wide.graph.initializer[2].raw_data = b"1234"
    with pytest.raises(ModelError, match=r"'wide' has 4 bytes; its shape needs 40000"):
        weights.save(wide, tmp_path / "model.onnx", "model.bin")
