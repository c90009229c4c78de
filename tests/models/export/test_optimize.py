from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from assay.errors import ModelError
from assay.models.export.optimize import optimize


def test_products_of_matrices_stay_whole(linear: onnx.ModelProto, tmp_path: Path) -> None:
    assert [node.op_type for node in optimize(linear, tmp_path).graph.node] == ["MatMul", "Add"]


def test_large_weights_that_nothing_folds_come_back_unchanged(
    make_model: Callable[..., onnx.ModelProto], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    weights = {
        "table": generator.standard_normal((600, 512)).astype(np.float32),
        "w": generator.standard_normal((512, 600)).astype(np.float32),
        "turned": generator.standard_normal((600, 600)).astype(np.float32),
        "two": np.float32(2),
    }
    nodes = [
        make_node("Cast", ["x"], ["ids"], to=onnx.TensorProto.INT64),
        make_node("Gather", ["table", "ids"], ["rows"]),
        make_node("MatMul", ["rows", "w"], ["product"]),
        make_node("Transpose", ["turned"], ["factor"]),
        make_node("MatMul", ["product", "factor"], ["z"]),
        make_node("Mul", ["z", "two"], ["y"]),
    ]
    model = optimize(make_model(nodes, {"x": [3]}, {"y": [3, 600]}, weights), tmp_path)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Gather", "MatMul", "MatMul", "Mul"]
    assert [value.name for value in model.graph.input] == ["x"]
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in ("table", "w"):
        np.testing.assert_array_equal(found[name], weights[name])
    np.testing.assert_array_equal(found["factor"], weights["turned"].T)
    assert "turned" not in found


def test_large_weights_that_a_branch_reads_are_seen_by_the_optimiser(
    make_model: Callable[..., onnx.ModelProto], tmp_path: Path
) -> None:
    result = onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [600, 600])
    branch = onnx.helper.make_graph([make_node("MatMul", ["x", "w"], ["r"])], "branch", [], [result])
    nodes = [make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    weights = {"w": np.ones((512, 600), np.float32), "yes": np.True_}
    model = optimize(make_model(nodes, {"x": [600, 512]}, {"y": [600, 600]}, weights), tmp_path)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]


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
    assert {node.domain for node in optimize(linear, tmp_path).graph.node} == {""}


def test_a_model_that_cannot_be_loaded_is_a_model_error(linear: onnx.ModelProto, tmp_path: Path) -> None:
    linear.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load the model: .*NoSuchOperator"):
        optimize(linear, tmp_path)
