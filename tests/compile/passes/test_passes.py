from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def constants(*arrays: Any) -> Any:
    """A module whose outputs are movements of constants: transposed, reshaped, cast, and a scalar."""
    from tvm import relax

    a, b = (relax.const(array) for array in arrays)
    builder = relax.BlockBuilder()
    with builder.function("main", []):
        with builder.dataflow():
            moved = [
                relax.op.permute_dims(a),
                relax.op.reshape(a, (3, 2)),
                relax.op.astype(a, "int64"),
                relax.op.reshape(b, ()),
                relax.op.expand_dims(relax.op.squeeze(b), 0),
            ]
            result = builder.emit_output(relax.Tuple([builder.emit(m) for m in moved]))
        builder.emit_func_output(result)
    return builder.get()


def test_movement_of_constants_is_evaluated(tvm: Any) -> None:
    from assay.compile.passes.constants import array_of, fold_constant_movement

    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7], np.float32)
    module = fold_constant_movement(constants(a, b))
    main = module["main"]
    fields = main.body.body
    if not hasattr(fields, "fields"):
        fields = main.body.blocks[0].bindings[-1].value
    found = [array_of(field) for field in fields.fields]
    for got, wanted in zip(found, [a.T, a.reshape(3, 2), a.astype("int64"), b.reshape(()), b], strict=True):
        assert got is not None
        assert got.shape == wanted.shape
        np.testing.assert_array_equal(got, wanted)


def test_squeeze_and_its_like_become_reshapes(make_model: MakeModel, agree: Agree) -> None:
    nodes = [
        node("Unsqueeze", ["x", "two"], ["a"]),
        node("Squeeze", ["a", "zero"], ["b"]),
        node("Flatten", ["b"], ["c"], axis=0),
        node("Relu", ["c"], ["y"]),
    ]
    weights = {"two": np.array([2]), "zero": np.array([0])}
    model = make_model(nodes, {"x": [1, 3, 4]}, {"y": [None, None]}, weights)
    agree(model, {"x": normal(1, 3, 4)})


@pytest.mark.parametrize(
    ("channels", "group", "kernel", "attributes"),
    [
        (6, 1, 3, {"pads": [1, 1]}),
        (6, 1, 5, {"pads": [4, 0], "strides": [2]}),
        (6, 1, 3, {"dilations": [3]}),
        (6, 2, 1, {}),
        (6, 6, 4, {"pads": [3, 0]}),
        (1, 1, 16, {"strides": [4]}),
    ],
)
def test_convolution_over_one_axis(
    make_model: MakeModel, agree: Agree, channels: int, group: int, kernel: int, attributes: dict[str, Any]
) -> None:
    weights = {"w": normal(6, channels // group, kernel), "b": normal(6)}
    conv = node("Conv", ["x", "w", "b"], ["y"], group=group, **attributes)
    model = make_model([conv], {"x": [2, channels, 29]}, {"y": [None] * 3}, weights)
    agree(model, {"x": normal(2, channels, 29)})


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([3, 4], [4, 5]),
        ([2, 3, 4], [4, 5]),
        ([2, 3, 4], [2, 4, 5]),
        ([3, 4], [2, 4, 5]),
        ([2, 1, 3, 4], [6, 4, 5]),
        ([4], [4, 5]),
        ([3, 4], [4]),
        ([2, 3, 4], [4]),
        ([4], [4]),
        ([1, 1], [1, 1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("constant", [False, True], ids=["computed", "constant"])
def test_matrix_products(
    make_model: MakeModel, agree: Agree, a: list[int], b: list[int], *, constant: bool
) -> None:
    inputs = {"a": a} if constant else {"a": a, "b": b}
    weights = {"b": normal(*b)} if constant else {}
    shape = list(np.shape(normal(*a) @ normal(*b)))
    model = make_model([node("MatMul", ["a", "b"], ["y"])], inputs, {"y": shape}, weights)
    agree(model, {name: normal(*shape) for name, shape in inputs.items()})


@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)], ids=str)
def test_gemm_operator(make_model: MakeModel, agree: Agree, transposed: tuple[int, int]) -> None:
    a, b = ([4, 6] if transposed[0] else [6, 4]), ([5, 4] if transposed[1] else [4, 5])
    gemm = node(
        "Gemm", ["a", "b", "c"], ["y"], alpha=0.5, beta=2.0, transA=transposed[0], transB=transposed[1]
    )
    model = make_model([gemm], {"a": a}, {"y": [6, 5]}, {"b": normal(*b), "c": normal(5)})
    agree(model, {"a": normal(*a)})


def test_products_of_other_types_are_left_to_tvm(make_model: MakeModel, agree: Agree) -> None:
    model = make_model(
        [node("MatMul", ["a", "b"], ["y"])],
        {"a": ([3, 4], "float64"), "b": ([4, 5], "float64")},
        {"y": ([3, 5], "float64")},
    )
    agree(model, {"a": normal(3, 4).astype("f8"), "b": normal(4, 5).astype("f8")})


def _extracted(tvm: Any, arrays: list[Any]) -> tuple[Any, dict[str, Any]]:
    from tvm import relax

    from assay.compile.passes.weights import extract_weights

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((32,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for constant in arrays:
                value = builder.emit(relax.op.add(value, constant))
            value = builder.emit_output(value)
        builder.emit_func_output(value)
    return extract_weights(relax.transform.LegalizeOps()(builder.get()))


def test_weights_leave_the_graph_under_names_of_their_kernels(tvm: Any) -> None:
    from tvm import relax

    shared, own = relax.const(normal(32)), relax.const(normal(32) + 1)
    small = relax.const(np.float32(2))
    module, weights = _extracted(tvm, [shared, own, shared, small])
    assert list(weights) == ["add.1", "add.1.2"]
    np.testing.assert_array_equal(weights["add.1"], normal(32))
    np.testing.assert_array_equal(weights["add.1.2"], normal(32) + 1)
    assert all(array.flags.c_contiguous for array in weights.values())
    main = module["main"]
    assert len(main.params) == 2
    assert len(main.params[1].ty.fields) == 2


def test_graph_without_weights_takes_no_bundle(tvm: Any) -> None:
    module, weights = _extracted(tvm, [])
    assert weights == {}
    assert len(module["main"].params) == 1


def test_weights_that_many_operators_share(make_model: MakeModel, agree: Agree) -> None:
    nodes = [
        node("Gather", ["table", "i"], ["e"]),
        node("Add", ["e", "x"], ["h"]),
        node("Transpose", ["table"], ["t"], perm=[1, 0]),
        node("MatMul", ["h", "t"], ["y"]),
        node("Add", ["x", "bias"], ["u"]),
        node("Mul", ["u", "bias"], ["z"]),
    ]
    model = make_model(
        nodes,
        {"i": (["n"], "int64"), "x": ["n", 24]},
        {"y": ["n", 11], "z": ["n", 24]},
        {"table": normal(11, 24), "bias": normal(24)},
    )
    agree(model, {"i": np.array([0, 10, 3]), "x": normal(3, 24)})
