from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx.helper import make_node

from assay.models.export.rewrite import rewrite
from assay.models.export.strip import remove_unused

MakeModel = Callable[..., onnx.ModelProto]


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _check_same_result(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    onnx.checker.check_model(after)
    generator = np.random.default_rng(1)
    inputs = {
        value.name: generator.standard_normal(
            [dim.dim_value for dim in value.type.tensor_type.shape.dim], dtype=np.float32
        )
        for value in before.graph.input
    }
    wanted = onnx.reference.ReferenceEvaluator(before).run(None, inputs)
    found = onnx.reference.ReferenceEvaluator(after).run(None, inputs)
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def _rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(copy).graph
    values = (*inferred.input, *inferred.value_info)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    assert rewrite(copy, ranks)
    remove_unused(copy)
    _check_same_result(model, copy)
    return copy


@pytest.mark.parametrize("count", [1, 2, 4])
def test_sums_become_additions(count: int, make_model: MakeModel) -> None:
    names = [f"x{index}" for index in range(count)]
    model = make_model(
        [make_node("Sum", names, ["y"], name="total")], {name: [2, 3] for name in names}, {"y": [2, 3]}
    )
    operators = _operators(_rewritten(model))
    assert operators == (["Add"] * (count - 1) or ["Identity"])


def _normalised(make_model: MakeModel, after: list[onnx.NodeProto], last: str) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = {
        name: generator.uniform(0.5, 2, 3).astype(np.float32)
        for name in ("gamma", "beta", "mean", "variance")
    }
    weights["factor"] = generator.uniform(0.5, 2, (3, 1, 1)).astype(np.float32)
    weights["summand"] = generator.uniform(0.5, 2, (1, 3, 1, 1)).astype(np.float32)
    weights["rows"] = generator.uniform(0.5, 2, (4, 1)).astype(np.float32)
    first = make_node("BatchNormalization", ["x", "gamma", "beta", "mean", "variance"], ["n"], epsilon=0.01)
    return make_model([first, *after], {"x": [2, 3, 4, 5]}, {last: [2, 3, 4, 5]}, weights)


def test_a_lone_normalisation_becomes_a_product_and_a_sum(make_model: MakeModel) -> None:
    model = _normalised(make_model, [make_node("Relu", ["n"], ["y"])], "y")
    assert _operators(_rewritten(model)) == ["Mul", "Add", "Relu"]


def test_constant_products_and_sums_after_a_normalisation_join_it(make_model: MakeModel) -> None:
    after = [
        make_node("Mul", ["n", "factor"], ["m"]),
        make_node("Add", ["summand", "m"], ["a"]),
        make_node("Relu", ["a"], ["y"]),
    ]
    assert _operators(_rewritten(_normalised(make_model, after, "y"))) == ["Mul", "Add", "Relu"]


def test_a_factor_along_another_axis_does_not_join(make_model: MakeModel) -> None:
    after = [make_node("Mul", ["n", "rows"], ["y"])]
    assert _operators(_rewritten(_normalised(make_model, after, "y"))) == ["Mul", "Add", "Mul"]


def test_a_normalisation_with_several_readers_keeps_its_value(make_model: MakeModel) -> None:
    after = [make_node("Mul", ["n", "factor"], ["m"]), make_node("Add", ["m", "n"], ["y"])]
    assert _operators(_rewritten(_normalised(make_model, after, "y"))) == ["Mul", "Add", "Mul", "Add"]


def test_a_normalisation_that_is_an_output_keeps_its_name(make_model: MakeModel) -> None:
    model = _rewritten(_normalised(make_model, [], "n"))
    assert model.graph.node[-1].output[0] == "n"


def test_squares_become_products(make_model: MakeModel) -> None:
    model = make_model(
        [make_node("Pow", ["x", "two"], ["y"])], {"x": [4]}, {"y": [4]}, {"two": np.float32(2)}
    )
    assert _operators(_rewritten(model)) == ["Mul"]


def test_other_powers_stay(make_model: MakeModel) -> None:
    model = make_model(
        [make_node("Pow", ["x", "three"], ["y"])], {"x": [4]}, {"y": [4]}, {"three": np.float32(3)}
    )
    assert not rewrite(model, {})
    assert _operators(model) == ["Pow"]


def test_a_negated_convolution_has_negated_weights(make_model: MakeModel) -> None:
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((4, 2, 3, 3)).astype(np.float32),
        "b": generator.standard_normal(4).astype(np.float32),
    }
    nodes = [
        make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        make_node("Conv", ["x", "w", "b"], ["d"], pads=[1, 1, 1, 1]),
        make_node("Neg", ["c"], ["y"]),
    ]
    shape = [1, 4, 5, 5]
    model = _rewritten(make_model(nodes, {"x": [1, 2, 5, 5]}, {"y": shape, "d": shape}, weights))
    assert _operators(model) == ["Conv", "Conv"]
