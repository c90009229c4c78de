"""Weights in the graph, and beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.models.decoders import initializers
from assay.models.decoders.initializers import InitializerWriter


def load(writer: InitializerWriter, folder: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    model = onnx.ModelProto()
    model.graph.initializer.extend(writer.tensors)
    onnx.load_external_data_for_model(model, str(folder))
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("limit", [1, 20_000, 10**9])
def test_arrays_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(initializers, "INLINE_BYTES", limit)
    arrays = {
        "small": np.arange(3, dtype=np.int64),
        "first": np.random.default_rng(0).standard_normal((50, 77)).astype(np.float32),
        "second": np.arange(9000, dtype=np.uint8).reshape(9, 1000),
        "third": np.arange(4096, dtype=np.float16),
        "scalar": np.array(2.5, np.float32),
    }
    with InitializerWriter(tmp_path / "weights.bin") as writer:
        for name, array in arrays.items():
            assert writer.add(name, array) == name
    found = load(writer, tmp_path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert (tmp_path / "weights.bin").exists() == (limit < 10**9)
    external = [tensor for tensor in writer.tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert [tensor.name for tensor in external] == (["first", "second", "third"] if limit < 10**9 else [])
    for tensor in external:
        assert not tensor.raw_data
        assert int({entry.key: entry.value for entry in tensor.external_data}["offset"]) % 64 == 0


def test_an_error_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initializers, "INLINE_BYTES", 1)

    def fail_half_way() -> None:
        with InitializerWriter(tmp_path / "weights.bin") as writer:
            writer.add("first", np.zeros(5000, np.float32))
            assert (tmp_path / "weights.bin").exists()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
