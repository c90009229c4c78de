from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]
Run = Callable[..., dict[str, Any]]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * 3


@pytest.mark.parametrize(
    "bounds",
    [(0.0, 6.0), (0.0, None), (None, 1.0), (-1.0, 1.0), (None, None), (2.0, -2.0)],
    ids=str,
)
def test_clip(make_model: MakeModel, agree: Agree, bounds: tuple[float | None, float | None]) -> None:
    names = ["low" if bounds[0] is not None else "", "high" if bounds[1] is not None else ""]
    weights = {
        name: np.float32(bound) for name, bound in zip(names, bounds, strict=True) if bound is not None
    }
    model = make_model([node("Clip", ["x", *names], ["y"])], {"x": [5, 9]}, {"y": [5, 9]}, weights)
    agree(model, {"x": normal(5, 9)})


def test_clip_with_attributes(make_model: MakeModel, agree: Agree) -> None:
    model = make_model([node("Clip", ["x"], ["y"], min=-0.5, max=0.5)], {"x": [40]}, {"y": [40]}, opset=6)
    agree(model, {"x": normal(40)})


def test_clip_of_integers_and_with_computed_bounds(make_model: MakeModel, agree: Agree) -> None:
    model = make_model(
        [node("Clip", ["n", "low", "high"], ["m"]), node("Clip", ["x", "a", "b"], ["y"])],
        {"n": ([7], "int64"), "x": [7], "a": [], "b": []},
        {"m": ([7], "int64"), "y": [7]},
        {"low": np.int64(-1), "high": np.int64(3)},
    )
    agree(
        model,
        {"n": np.arange(-3, 4), "x": normal(7), "a": np.array(-1, "f4"), "b": np.array(1, "f4")},
    )


@pytest.mark.parametrize(("axis", "shape"), [(0, [6, 5, 4]), (1, [6, 5, 4]), (-1, [6, 5, 4]), (0, [7])])
def test_gather_with_indices_from_both_ends(
    make_model: MakeModel, agree: Agree, axis: int, shape: list[int]
) -> None:
    size = shape[axis]
    model = make_model(
        [node("Gather", ["x", "i"], ["y"], axis=axis)],
        {"x": shape, "i": ([2, 3], "int64")},
        {"y": [None] * (len(shape) + 1)},
    )
    agree(model, {"x": normal(*shape), "i": np.array([[0, size - 1, -1], [-size, 1, -2]])})


def test_gather_with_constant_indices(make_model: MakeModel, agree: Agree) -> None:
    model = make_model(
        [node("Gather", ["x", "i"], ["y"], axis=1), node("Gather", ["x", "j"], ["z"], axis=0)],
        {"x": ["batch", 5]},
        {"y": ["batch", 3], "z": [5]},
        {"i": np.array([4, -1, 0]), "j": np.array(-1)},
    )
    agree(model, {"x": normal(3, 5)})


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_gather_with_indices_out_of_range_stays_inside(
    make_model: MakeModel, run_compiled: Run, dtype: str
) -> None:
    table = np.arange(10, dtype=np.float32)
    model = make_model([node("Gather", ["t", "i"], ["y"])], {"i": ([5], dtype)}, {"y": [5]}, {"t": table})
    far = np.iinfo(dtype)
    indices = np.array([far.max, far.min, 10, -11, 3], dtype)
    (result,) = run_compiled(model, {"i": indices}).values()
    assert result.tolist() == [9, 0, 9, 0, 3]


@pytest.mark.parametrize(
    ("size", "attributes"),
    [(5, {"alpha": 1e-3, "beta": 0.75, "bias": 2.0}), (3, {}), (7, {"beta": 0.6, "alpha": 0.1})],
)
def test_local_response_normalization(
    make_model: MakeModel, agree: Agree, size: int, attributes: dict[str, float]
) -> None:
    model = make_model(
        [node("LRN", ["x"], ["y"], size=size, **attributes)], {"x": [2, 7, 3, 4]}, {"y": [2, 7, 3, 4]}
    )
    agree(model, {"x": normal(2, 7, 3, 4)})


@pytest.mark.parametrize(
    ("opset", "inputs", "weights", "attributes"),
    [
        (18, ["x", "p"], {"p": [0, 1, 2, 3, 0, 0]}, {}),
        (18, ["x", "p", "v"], {"p": [1, 0, 0, 0, 2, 1], "v": np.float32(1.5)}, {}),
        (18, ["x", "p", "", "a"], {"p": [1, 2], "a": [-1]}, {}),
        (18, ["x", "p", "", "a"], {"p": [2, 1, 0, 3], "a": [2, 0]}, {}),
        (18, ["x", "p"], {"p": [0, 0, 1, 0, 0, 1]}, {"mode": "reflect"}),
        (18, ["x", "p"], {"p": [0] * 6}, {}),
        (13, ["x", "p"], {"p": [0, 1, 2, 3, 0, 0]}, {}),
        (2, ["x"], {}, {"pads": [0, 1, 0, 1, 0, 2], "value": 0.25}),
    ],
)
def test_pad(
    make_model: MakeModel,
    agree: Agree,
    opset: int,
    inputs: list[str],
    weights: dict[str, Any],
    attributes: dict[str, Any],
) -> None:
    model = make_model(
        [node("Pad", inputs, ["y"], **attributes)], {"x": [2, 3, 4]}, {"y": [None] * 3}, weights, opset
    )
    agree(model, {"x": normal(2, 3, 4)})


def test_pad_that_crops(make_model: MakeModel, agree: Agree) -> None:
    model = make_model(
        [node("Pad", ["x", "p"], ["y"])], {"x": [4, 5]}, {"y": [None, None]}, {"p": np.array([-1, 1, 0, -2])}
    )
    agree(model, {"x": normal(4, 5)})


@pytest.mark.parametrize("target", [[1, 1, 1], [2, 1, 5, 1], [1]], ids=str)
def test_expand_keeps_symbolic_sizes(make_model: MakeModel, agree: Agree, target: list[int]) -> None:
    model = make_model(
        [node("Expand", ["x", "shape"], ["y"])],
        {"x": ["n", 1, 3]},
        {"y": [None] * max(3, len(target))},
        {"shape": np.array(target)},
    )
    agree(model, {"x": normal(4, 1, 3)})
