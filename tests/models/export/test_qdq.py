from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.helper import make_node

from assay.errors import ModelError
from assay.models.export.qdq import to_qdq

MakeModel = Callable[..., onnx.ModelProto]


def outputs(model: onnx.ModelProto, inputs: Mapping[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(inputs)))


def same_after(model: onnx.ModelProto, inputs: Mapping[str, Any], gone: str) -> None:
    """The rewritten model has no ``gone``, and gives the same integers up to one where rounding differs."""
    del model.opset_import[:]
    model.opset_import.extend(
        [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    )
    before = outputs(model, inputs)
    assert to_qdq(model)
    assert gone not in {node.op_type for node in model.graph.node}
    onnx.checker.check_model(model)
    for ours, theirs in zip(outputs(model, inputs), before, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours.astype(np.float64), theirs.astype(np.float64), rtol=1e-6, atol=1)


def integers(*shape: int, dtype: str = "uint8") -> Any:
    limits = np.iinfo(dtype)
    return np.random.default_rng(sum(shape)).integers(limits.min, limits.max + 1, shape).astype(dtype)


PARAMETERS = {
    "s": np.float32(0.02), "z": np.uint8(120), "t": np.float32(0.05), "o": np.uint8(90),
    "vs": np.array([0.01, 0.02, 0.03, 0.015], np.float32), "vz": np.zeros(4, np.int8),
}  # fmt: skip


def test_convolution(make_model: MakeModel) -> None:
    weights = {
        **PARAMETERS,
        "w": integers(4, 3, 3, 3, dtype="int8") // 2,
        "b": np.array([5, -700, 900, 0], np.int32),
    }
    node = make_node(
        "QLinearConv", ["x", "s", "z", "w", "vs", "vz", "t", "o", "b"], ["y"], name="c", pads=[1, 1, 1, 1]
    )
    model = make_model([node], {"x": ([1, 3, 6, 6], "uint8")}, {"y": ([1, 4, 6, 6], "uint8")}, weights)
    same_after(model, {"x": integers(1, 3, 6, 6)}, "QLinearConv")


def test_matrix_product(make_model: MakeModel) -> None:
    weights = {**PARAMETERS, "w": integers(5, 4, dtype="int8") // 2}
    node = make_node("QLinearMatMul", ["x", "s", "z", "w", "vs", "vz", "t", "o"], ["y"], name="m")
    model = make_model([node], {"x": ([3, 5], "uint8")}, {"y": ([3, 4], "uint8")}, weights)
    same_after(model, {"x": integers(3, 5)}, "QLinearMatMul")


@pytest.mark.parametrize("quantized", [True, False])
def test_gemm(make_model: MakeModel, *, quantized: bool) -> None:
    weights = {**PARAMETERS, "w": integers(4, 5, dtype="int8") // 2, "b": np.array([5, -70, 90, 0], np.int32)}
    inputs = ["x", "s", "z", "w", "vs", "vz", "b", *(["t", "o"] if quantized else [])]
    node = make_node("QGemm", inputs, ["y"], name="g", domain="com.microsoft", transB=1)
    dtype = "uint8" if quantized else "float32"
    model = make_model([node], {"x": ([3, 5], "uint8")}, {"y": ([3, 4], dtype)}, weights)
    same_after(model, {"x": integers(3, 5)}, "QGemm")


@pytest.mark.parametrize("operator", ["QLinearAdd", "QLinearMul"])
def test_two_operands(make_model: MakeModel, operator: str) -> None:
    node = make_node(
        operator, ["x", "s", "z", "r", "s", "o", "t", "o"], ["y"], name="a", domain="com.microsoft"
    )
    model = make_model(
        [node], {"x": ([2, 9], "uint8"), "r": ([2, 9], "uint8")}, {"y": ([2, 9], "uint8")}, PARAMETERS
    )
    same_after(model, {"x": integers(2, 9), "r": integers(9, 2).reshape(2, 9)}, operator)


@pytest.mark.parametrize(
    ("operator", "attributes", "shape"),
    [
        ("QLinearSigmoid", {}, [1, 3, 4, 4]),
        ("QLinearLeakyRelu", {"alpha": 0.1}, [1, 3, 4, 4]),
        ("QLinearAveragePool", {"kernel_shape": [2, 2]}, [1, 3, 3, 3]),
        ("QLinearGlobalAveragePool", {"channels_last": 0}, [1, 3, 1, 1]),
    ],
)
def test_one_operand(make_model: MakeModel, operator: str, attributes: Any, shape: list[int]) -> None:
    node = make_node(
        operator, ["x", "s", "z", "t", "o"], ["y"], name="u", domain="com.microsoft", **attributes
    )
    model = make_model([node], {"x": ([1, 3, 4, 4], "uint8")}, {"y": (shape, "uint8")}, PARAMETERS)
    same_after(model, {"x": integers(1, 3, 4, 4)}, operator)


def test_concatenation(make_model: MakeModel) -> None:
    node = make_node(
        "QLinearConcat",
        ["t", "o", "x", "s", "z", "r", "t", "o"],
        ["y"],
        name="k",
        domain="com.microsoft",
        axis=1,
    )
    model = make_model(
        [node], {"x": ([2, 3], "uint8"), "r": ([2, 4], "uint8")}, {"y": ([2, 7], "uint8")}, PARAMETERS
    )
    same_after(model, {"x": integers(2, 3), "r": integers(2, 4)}, "QLinearConcat")


@pytest.mark.parametrize("cast", [True, False], ids=["to float", "integers"])
def test_integer_product(make_model: MakeModel, *, cast: bool) -> None:
    nodes = [make_node("MatMulInteger", ["x", "w", "z", "vz"], ["p" if cast else "y"], name="i")]
    if cast:
        nodes.append(make_node("Cast", ["p"], ["y"], to=onnx.TensorProto.FLOAT))
    # Of seven bits: ONNX Runtime's own sums saturate with eight on a CPU without VNNI.
    weights = {**PARAMETERS, "w": integers(5, 4, dtype="int8") // 2}
    model = make_model(
        nodes, {"x": ([3, 5], "uint8")}, {"y": ([3, 4], "float32" if cast else "int32")}, weights
    )
    same_after(model, {"x": integers(3, 5)}, "MatMulInteger")


def test_a_computed_scale_is_refused_by_name(make_model: MakeModel) -> None:
    node = make_node("QLinearMatMul", ["x", "s", "z", "w", "given", "vz", "t", "o"], ["y"], name="m")
    weights = {**PARAMETERS, "w": integers(5, 4, dtype="int8")}
    model = make_model(
        [node], {"x": ([3, 5], "uint8"), "given": ([4], "float32")}, {"y": ([3, 4], "uint8")}, weights
    )
    with pytest.raises(ModelError, match=r"'given' of the node 'm' \(QLinearMatMul\)"):
        to_qdq(model)


def test_an_old_operator_set_is_refused(make_model: MakeModel) -> None:
    node = make_node("MatMulInteger", ["x", "w"], ["y"])
    model = make_model(
        [node],
        {"x": ([3, 5], "uint8")},
        {"y": ([3, 4], "int32")},
        {"w": integers(5, 4, dtype="int8")},
        opset_imports=[onnx.helper.make_opsetid("", 11)],
    )
    with pytest.raises(ModelError, match="operator set 11"):
        to_qdq(model)


def test_other_models_are_left_alone(make_model: MakeModel) -> None:
    model = make_model([make_node("Relu", ["x"], ["y"])], {"x": [2]}, {"y": [2]})
    assert not to_qdq(model)
