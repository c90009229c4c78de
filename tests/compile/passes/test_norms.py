from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node

WIDTH = 37
CONSTANTS = {
    "two": np.float32(2),
    "one": np.float32(1),
    "epsilon": np.float32(1e-5),
    "last": np.array([-1]),
    "weight": np.linspace(0.5, 1.5, WIDTH, dtype=np.float32),
    "bias": np.linspace(-1, 1, WIDTH, dtype=np.float32),
}


def mean_square(x: str, square: Any) -> list[Any]:
    return [
        square,
        node("ReduceMean", ["squares", "last"], ["mean"]),
        node("Add", ["mean", "epsilon"], ["sum"]),
    ]


def power(x: str) -> Any:
    return node("Pow", [x, "two"], ["squares"])


def product(x: str) -> Any:
    return node("Mul", [x, x], ["squares"])


def by_reciprocal(x: str) -> list[Any]:
    """As torch exports rsqrt."""
    return [
        node("Sqrt", ["sum"], ["root"]),
        node("Reciprocal", ["root"], ["inverse"]),
        node("Mul", [x, "inverse"], ["normal"]),
    ]


def by_division(x: str) -> list[Any]:
    return [node("Sqrt", ["sum"], ["root"]), node("Div", [x, "root"], ["normal"])]


def by_quotient(x: str) -> list[Any]:
    return [
        node("Sqrt", ["sum"], ["root"]),
        node("Div", ["one", "root"], ["inverse"]),
        node("Mul", ["inverse", x], ["normal"]),
    ]


RMS_NORMS = {
    "reciprocal": [
        *mean_square("x", power("x")),
        *by_reciprocal("x"),
        node("Mul", ["weight", "normal"], ["y"]),
    ],
    "division": [
        *mean_square("x", product("x")),
        *by_division("x"),
        node("Mul", ["normal", "weight"], ["y"]),
    ],
    "quotient": [*mean_square("x", power("x")), *by_quotient("x"), node("Mul", ["normal", "weight"], ["y"])],
}

CENTRE = [node("ReduceMean", ["x", "last"], ["centre"]), node("Sub", ["x", "centre"], ["c"])]

LAYER_NORMS = {
    "division": [
        *CENTRE,
        *mean_square("c", power("c")),
        *by_division("c"),
        node("Mul", ["normal", "weight"], ["scaled"]),
        node("Add", ["scaled", "bias"], ["y"]),
    ],
    "reciprocal": [
        *CENTRE,
        *mean_square("c", product("c")),
        *by_reciprocal("c"),
        node("Mul", ["normal", "weight"], ["scaled"]),
        node("Add", ["bias", "scaled"], ["y"]),
    ],
    "no bias": [
        *CENTRE,
        *mean_square("c", power("c")),
        *by_division("c"),
        node("Mul", ["normal", "weight"], ["y"]),
    ],
}


def model_of(make_model: Any, nodes: list[Any]) -> Any:
    used = {name for one in nodes for name in one.input}
    weights = {name: value for name, value in CONSTANTS.items() if name in used}
    return make_model(nodes, {"x": ["b", "s", WIDTH]}, {"y": ["b", "s", WIDTH]}, weights)


def operators(model: Any) -> list[str]:
    from tvm import relax

    from assay.compile.importer import import_onnx
    from assay.compile.passes.constants import fold_constant_movement
    from assay.compile.passes.graph import is_call
    from assay.compile.passes.norms import join_norms

    module = join_norms(fold_constant_movement(import_onnx(model)))
    calls: list[Any] = []
    relax.analysis.post_order_visit(module["main"], calls.append)
    names = [c.op.name.removeprefix("relax.") for c in calls if hasattr(c, "op") and hasattr(c.op, "name")]
    assert all(is_call(c, c.op.name.removeprefix("relax.")) for c in calls if hasattr(c, "op"))
    return names


def inputs() -> dict[str, Any]:
    x = np.random.default_rng(1).standard_normal((2, 7, WIDTH)).astype(np.float32)
    x[0, 0] = 0
    return {"x": x}


@pytest.mark.parametrize("nodes", RMS_NORMS.values(), ids=RMS_NORMS.keys())
def test_rms_norm_is_one_operator(make_model: Any, agree: Any, nodes: list[Any]) -> None:
    model = model_of(make_model, nodes)
    assert operators(model) == ["nn.rms_norm"]
    agree(model, inputs())


@pytest.mark.parametrize("nodes", LAYER_NORMS.values(), ids=LAYER_NORMS.keys())
def test_layer_norm_is_one_operator(make_model: Any, agree: Any, nodes: list[Any]) -> None:
    model = model_of(make_model, nodes)
    assert operators(model) == ["nn.layer_norm"]
    agree(model, inputs())


def test_a_mean_square_of_something_else_is_no_norm(make_model: Any, agree: Any) -> None:
    nodes = [
        node("Add", ["x", "one"], ["other"]),
        *mean_square("other", power("other")),
        *by_division("x"),
        node("Mul", ["normal", "weight"], ["y"]),
    ]
    model = model_of(make_model, nodes)
    assert "nn.rms_norm" not in operators(model)
    agree(model, inputs())


def test_a_norm_over_another_axis_stays_apart(make_model: Any) -> None:
    nodes = [one for one in RMS_NORMS["division"] if one.op_type != "ReduceMean"]
    nodes.insert(1, node("ReduceMean", ["squares", "middle"], ["mean"]))
    model = model_of(make_model, nodes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "middle"))
    assert "nn.rms_norm" not in operators(model)
