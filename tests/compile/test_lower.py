"""Graphs that are valid but unlike most networks, and what lowering is told beside the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.targets import targets
from assay.errors import AssayError

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("profile", ["release", "debug"])
def test_every_profile(agree: Agree, perceptron: onnx.ModelProto, profile: str) -> None:
    agree(perceptron, {"x": normal(5, 20)}, profile=profile)


def test_one_value_as_two_outputs_and_an_intermediate_one(make_model: MakeModel, agree: Agree) -> None:
    nodes = [
        node("Relu", ["x"], ["h"]),
        node("Neg", ["h"], ["y"]),
        node("Identity", ["y"], ["z"]),
    ]
    model = make_model(nodes, {"x": ["n", 5]}, {"y": ["n", 5], "h": ["n", 5], "z": ["n", 5]})
    agree(model, {"x": normal(3, 5)})


def test_output_that_is_an_input(make_model: MakeModel, agree: Agree) -> None:
    model = make_model([node("Identity", ["x"], ["y"])], {"x": ["n", 5]}, {"y": ["n", 5]})
    agree(model, {"x": normal(3, 5)})


def test_output_that_is_constant(make_model: MakeModel, agree: Agree) -> None:
    nodes = [node("Identity", ["w"], ["y"]), node("Relu", ["x"], ["z"])]
    model = make_model(nodes, {"x": [2]}, {"y": [40], "z": [2]}, {"w": normal(40)})
    agree(model, {"x": normal(2)})


def test_input_that_nothing_reads(make_model: MakeModel, agree: Agree) -> None:
    model = make_model([node("Abs", ["x"], ["y"])], {"x": ["n"], "unused": ["n", "m"]}, {"y": ["n"]})
    agree(model, {"x": normal(3), "unused": normal(3, 2)})


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_element_types(make_model: MakeModel, agree: Agree, dtype: str) -> None:
    shape, kind = [3, 4], onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [node("Concat", ["x", "x"], ["y"], axis=0), node("Cast", ["b"], ["z"], to=kind)]
    model = make_model(nodes, {"x": (shape, dtype), "b": shape}, {"y": ([6, 4], dtype), "z": (shape, dtype)})
    agree(model, {"x": np.arange(12).reshape(shape).astype(dtype), "b": np.abs(normal(*shape)) * 3})


def test_sizes_that_follow_from_others(make_model: MakeModel, agree: Agree) -> None:
    nodes = [
        node("Concat", ["a", "b"], ["c"], axis=0),
        node("Reshape", ["c", "shape"], ["flat"]),
        node("Relu", ["flat"], ["y"]),
        node("Shape", ["c"], ["s"]),
        node("Cast", ["s"], ["sizes"], to=onnx.TensorProto.FLOAT),
    ]
    model = make_model(
        nodes,
        {"a": ["n", 3], "b": ["m", 3]},
        {"y": [None], "sizes": [2]},
        {"shape": np.array([-1])},
    )
    agree(model, {"a": normal(2, 3), "b": normal(5, 3)})


def test_two_dimensions_grow_apart(make_model: MakeModel, agree: Agree) -> None:
    """Attention as models write it: the lengths of both sides are free."""
    nodes = [
        node("MatMul", ["q", "k"], ["scores"]),
        node("Softmax", ["scores"], ["p"], axis=-1),
        node("MatMul", ["p", "v"], ["y"]),
    ]
    model = make_model(
        nodes, {"q": ["b", "s", 8], "k": ["b", 8, "t"], "v": ["b", "t", 8]}, {"y": ["b", "s", 8]}
    )
    for b, s, t in ((1, 1, 1), (2, 3, 17)):
        agree(model, {"q": normal(b, s, 8), "k": normal(b, 8, t), "v": normal(b, t, 8)})


@pytest.mark.parametrize("name", ["a b", "x.1", "scope/x:0", "größe", "main", "weights", "lambda", "0"])
def test_names_are_free(make_model: MakeModel, agree: Agree, name: str) -> None:
    nodes = [node("MatMul", [name, "w"], [name + "_"], name=name)]
    model = make_model(nodes, {name: ["n", 8]}, {name + "_": ["n", 8]}, {"w": normal(8, 8)})
    agree(model, {name: normal(2, 8)})


@pytest.mark.parametrize("name", list(targets()))
def test_every_target_is_compiled_for(tvm: Any, perceptron: onnx.ModelProto, name: str) -> None:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles

    lowered = lower(
        import_onnx(perceptron),
        target=targets()[name],
        profile=profiles()["release"],
        sizes={"batch": 8},
        maxima={"batch": 64},
    )
    assert lowered.unscheduled == ()


def test_step_that_fails_is_named(
    tvm: Any, monkeypatch: pytest.MonkeyPatch, perceptron: onnx.ModelProto
) -> None:
    import assay.compile.passes.layout as layout
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles

    def fail(_: Any) -> Any:
        raise AttributeError("'NoneType' object has no attribute 'shape'")

    monkeypatch.setattr(layout, "to_channels_last", fail)
    with pytest.raises(
        AssayError, match="step 'layout' of the compiler failed with AttributeError: 'NoneType'"
    ):
        lower(
            import_onnx(perceptron),
            target=targets()["x86-64-v3"],
            profile=profiles()["release"],
            sizes={},
            maxima={},
        )
