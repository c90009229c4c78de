"""Small ONNX models that the tests of models/ share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture
def make_model() -> MakeModel:
    """Make a model: nodes, inputs and outputs as {name: shape} or {name: (shape, dtype)}, initializers."""

    def make(
        nodes: Sequence[onnx.NodeProto],
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        weights: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> onnx.ModelProto:
        def declare(name: str, what: Any) -> onnx.ValueInfoProto:
            shape, dtype = what if isinstance(what, tuple) else (what, "float32")
            element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return onnx.helper.make_tensor_value_info(name, element, shape)

        graph = onnx.helper.make_graph(
            list(nodes),
            "test",
            [declare(name, shape) for name, shape in inputs.items()],
            [declare(name, shape) for name, shape in outputs.items()],
            [
                onnx.numpy_helper.from_array(np.asarray(value), name)
                for name, value in (weights or {}).items()
            ],
        )
        keywords.setdefault("opset_imports", [onnx.helper.make_opsetid("", 18)])
        keywords.setdefault("ir_version", 8)
        return onnx.helper.make_model(graph, **keywords)

    return make


@pytest.fixture
def linear(make_model: MakeModel) -> onnx.ModelProto:
    """``y = x @ w + b`` with x [batch, 4] and w [4, 3]."""
    generator = np.random.default_rng(0)
    return make_model(
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
            onnx.helper.make_node("Add", ["product", "b"], ["y"], name="sum"),
        ],
        {"x": ["N", 4]},
        {"y": ["N", 3]},
        {
            "w": generator.standard_normal((4, 3)).astype(np.float32),
            "b": generator.standard_normal(3).astype(np.float32),
        },
    )


@pytest.fixture
def linear_file(linear: onnx.ModelProto, tmp_path: Path) -> Path:
    """``linear`` on disk, all in one file."""
    path = tmp_path / "linear.onnx"
    onnx.save_model(linear, path)
    return path
