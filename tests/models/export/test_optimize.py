from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx.helper import make_node

from assay.errors import ModelError
from assay.models.export.optimize import optimize


def test_products_of_matrices_stay_whole(linear_file: Path) -> None:
    assert [node.op_type for node in optimize(linear_file).graph.node] == ["MatMul", "Add"]


def test_no_operator_of_onnx_runtime_appears(linear: onnx.ModelProto, tmp_path: Path) -> None:
    linear.graph.node.extend(
        [
            make_node("Sigmoid", ["y"], ["s"]),
            make_node("Mul", ["y", "s"], ["z"]),
            make_node("MatMul", ["z", "w2"], ["out"]),
        ]
    )
    linear.graph.initializer.append(onnx.helper.make_tensor("w2", 1, [3, 3], [1.0] * 9))
    linear.graph.output[0].name = "out"
    path = tmp_path / "model.onnx"
    onnx.save_model(linear, path)
    assert {node.domain for node in optimize(path).graph.node} == {""}


def test_a_model_that_cannot_be_loaded_is_a_model_error(linear: onnx.ModelProto, tmp_path: Path) -> None:
    linear.graph.node[0].op_type = "NoSuchOperator"
    path = tmp_path / "model.onnx"
    path.write_bytes(linear.SerializeToString())
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load the model: .*NoSuchOperator"):
        optimize(path)
