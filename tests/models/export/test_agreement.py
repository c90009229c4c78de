from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from assay.errors import ModelError
from assay.models.export.agreement import check_agreement
from assay.models.registry import find_model


def test_equal_models_agree(linear_file: Path) -> None:
    check_agreement(linear_file, linear_file, find_model(str(linear_file)))


def test_another_result_is_found(linear: onnx.ModelProto, linear_file: Path, tmp_path: Path) -> None:
    linear.graph.node[1].op_type = "Sub"
    changed = tmp_path / "changed.onnx"
    onnx.save_model(linear, changed)
    with pytest.raises(ModelError, match=r"computes another 'y'"):
        check_agreement(linear_file, changed, find_model(str(linear_file)))


def test_another_shape_is_found(linear: onnx.ModelProto, linear_file: Path, tmp_path: Path) -> None:
    linear.graph.node[1].output[0] = "sum"
    linear.graph.node.append(onnx.helper.make_node("Transpose", ["sum"], ["y"]))
    del linear.graph.output[0].type.tensor_type.shape.dim[:]
    linear.graph.output[0].type.tensor_type.ClearField("shape")
    changed = tmp_path / "changed.onnx"
    onnx.save_model(linear, changed)
    with pytest.raises(ModelError, match=r"computes another 'y'"):
        check_agreement(linear_file, changed, find_model(str(linear_file)))
