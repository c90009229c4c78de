from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest

from assay.errors import ModelError
from assay.models.providers import BoundInputs, OnnxFile


@pytest.fixture
def scaled(make_model: Callable[..., onnx.ModelProto], tmp_path: Path) -> OnnxFile:
    """``y = x * rate`` with a scalar input ``rate``."""
    node = onnx.helper.make_node("Mul", ["x", "rate"], ["y"])
    path = tmp_path / "scaled.onnx"
    onnx.save_model(make_model([node], {"x": [2], "rate": []}, {"y": [2]}), path)
    return OnnxFile(path=path)


def test_a_bound_input_is_a_constant(scaled: OnnxFile, tmp_path: Path) -> None:
    model = onnx.load_model(BoundInputs(source=scaled, values={"rate": 3}).onnx_path(tmp_path))
    assert [value.name for value in model.graph.input] == ["x"]
    onnx.checker.check_model(model)
    (found,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": np.array([1, 2], np.float32)})
    np.testing.assert_array_equal(found, np.array([3, 6], np.float32))
    assert found.dtype == np.float32


def test_an_unknown_input_is_refused(scaled: OnnxFile, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no input 'speed' to fix; it has x, rate"):
        BoundInputs(source=scaled, values={"speed": 1}).onnx_path(tmp_path)
