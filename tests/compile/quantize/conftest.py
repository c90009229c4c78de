from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.verify import reference_outputs

OnnxModel = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def language() -> onnx.ModelProto:
    """Logits of 60 tokens from 96 numbers each: a tied table, a wide layer with a bias, a narrow one."""
    generator = np.random.default_rng(5)
    node = onnx.helper.make_node

    def numbers(*shape: int) -> Any:
        return (generator.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    weights = {
        "table": numbers(60, 96),
        "up": numbers(96, 136),
        "up_bias": numbers(136),
        "down": numbers(96, 136),
        "down_bias": numbers(96),
    }
    nodes = [
        node("Gather", ["table", "ids"], ["x"], name="embed"),
        node("MatMul", ["x", "up"], ["wide"], name="layer/up"),
        node("Add", ["wide", "up_bias"], ["wider"], name="layer/up_bias"),
        node("Relu", ["wider"], ["active"], name="layer/relu"),
        node("Gemm", ["active", "down", "down_bias"], ["y"], name="layer/down", transB=1),
        node("Transpose", ["table"], ["turned"], name="turn", perm=[1, 0]),
        node("MatMul", ["y", "turned"], ["logits"], name="head"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "language",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["tokens"])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["tokens", 60])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, Any]]:
    """ONNX Runtime's outputs of a model."""

    def outputs(model: onnx.ModelProto, **inputs: Any) -> dict[str, Any]:
        onnx.checker.check_model(model)
        (found,) = reference_outputs(model.SerializeToString(), [inputs])
        return found

    return outputs


@pytest.fixture(scope="session")
def ids() -> Any:
    return np.random.default_rng(1).integers(0, 60, 9)


@pytest.fixture(scope="session")
def tensors() -> Callable[[onnx.ModelProto], dict[str, Any]]:
    """Initializers by name."""

    def found(model: onnx.ModelProto) -> dict[str, Any]:
        return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    return found
