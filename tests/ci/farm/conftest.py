from __future__ import annotations

import pytest

from assay.ci.farm.jobs import Job


@pytest.fixture
def job() -> Job:
    return Job(kind="build", model="tiny", target="x86-64-v3", scheme="f32", profile="release", tools="t")


@pytest.fixture
def product_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of y = x @ w with w [128, 64]."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.linspace(-1, 1, 8192, dtype=np.float32).reshape(128, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path_factory.mktemp("model") / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return str(path)
