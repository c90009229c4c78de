from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that write into an operand, of what is compiled in this test."""
    from assay.compile import lower

    names: list[str] = []
    original = lower._schedule

    def schedule(module: Any, context: Any) -> Any:
        names.extend(str(v.name_hint) for v in module.functions if "in_place" in str(v.name_hint))
        return original(module, context)

    monkeypatch.setattr(lower, "_schedule", schedule)
    return names


def test_residual_is_overwritten(make_model: MakeModel, agree: Agree, variants: list[str]) -> None:
    """Odd sizes, so that every kernel has tails of rows and of columns."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w0"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "w1"], ["e"], pads=[1] * 4, group=7),
        node("Add", ["e", "b"], ["f"]),
        node("Conv", ["f", "w2"], ["g"]),
        node("Relu", ["g"], ["h"]),
        node("Conv", ["h", "w0"], ["i"], pads=[1] * 4, strides=[1, 1]),
        node("Add", ["f", "i"], ["j"]),
        node("Conv", ["j", "w0"], ["k"], pads=[1] * 4),
        node("Relu", ["k"], ["l"]),
        node("Conv", ["l", "w2"], ["m"]),
        node("Mul", ["m", "j"], ["n"]),
        node("MaxPool", ["n"], ["y"], kernel_shape=[1, 1]),
    ]
    weights = {"w0": normal(7, 7, 3, 3) * 0.2, "w1": normal(7, 1, 3, 3), "w2": normal(7, 7, 1, 1) * 0.3}
    model = make_model(nodes, {"x": [2, 7, 5, 11]}, {"y": [2, 7, 5, 11]}, weights)
    agree(model, {"x": normal(2, 7, 5, 11, seed=1)})
    assert len(variants) == 3


def test_residual_of_a_matrix_product(make_model: MakeModel, agree: Agree, variants: list[str]) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "w"], ["b"]),
        node("Add", ["a", "b"], ["c"]),
        node("MatMul", ["c", "w"], ["p"]),
        node("Relu", ["p"], ["q"]),
        node("MatMul", ["q", "w"], ["d"]),
        node("Reshape", ["c", "flat"], ["e"]),
        node("Reshape", ["e", "back"], ["f"]),
        node("Mul", ["d", "f"], ["g"]),
        node("MatMul", ["g", "w"], ["y"]),
    ]
    weights = {"w": normal(19, 19) * 0.2, "flat": np.array([-1]), "back": np.array([-1, 19])}
    model = make_model(nodes, {"x": ["rows", 19]}, {"y": ["rows", 19]}, weights)
    agree(model, {"x": normal(13, 19)})
    assert len(variants) == 1


def test_value_that_is_read_again_is_kept(make_model: MakeModel, agree: Agree, variants: list[str]) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "w"], ["b"]),
        node("Add", ["a", "b"], ["c"]),
        node("MatMul", ["c", "w"], ["y"]),
        # Reads "a" later, through a view of it.
        node("Reshape", ["a", "shape"], ["d"]),
        node("MatMul", ["d", "v"], ["z"]),
    ]
    weights = {"w": normal(12, 12), "v": normal(24, 5), "shape": np.array([4, 24])}
    model = make_model(nodes, {"x": [8, 12]}, {"y": [8, 12], "z": [4, 5]}, weights)
    agree(model, {"x": normal(8, 12)})
    assert variants == []


def test_inputs_and_outputs_are_kept(make_model: MakeModel, agree: Agree, variants: list[str]) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "x"], ["y"]),
        node("MatMul", ["y", "w"], ["b"]),
        node("Add", ["b", "y"], ["z"]),
    ]
    model = make_model(nodes, {"x": [9, 9]}, {"y": [9, 9], "z": [9, 9]}, {"w": normal(9, 9)})
    x = normal(9, 9)
    agree(model, {"x": x})
    np.testing.assert_array_equal(x, normal(9, 9))
    assert variants == []


def test_operand_that_is_read_elsewhere_than_it_is_written(
    make_model: MakeModel, agree: Agree, variants: list[str]
) -> None:
    """A transposed operand, one row for all, and one that the product itself reads."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[1, 0]),
        node("MatMul", ["x", "w"], ["c"]),
        node("Tanh", ["c"], ["d"]),
        node("Add", ["b", "d"], ["e"]),
        node("MatMul", ["e", "e"], ["f"]),
        node("Add", ["f", "e"], ["g"]),
        node("ReduceMax", ["g", "axis"], ["h"], keepdims=1),
        node("Sub", ["g", "h"], ["i"]),
        node("Cos", ["i"], ["y"]),
    ]
    weights = {"w": normal(16, 16) * 0.2, "axis": np.array([0])}
    model = make_model(nodes, {"x": [16, 16]}, {"y": [16, 16]}, weights)
    agree(model, {"x": normal(16, 16)})
