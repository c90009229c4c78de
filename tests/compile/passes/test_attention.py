from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node

WIDTH, HEADS = 24, 3
DEPTH = WIDTH // HEADS


def random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def split(name: str, permutation: list[int], heads: int = HEADS) -> list[Any]:
    """``name`` [b, s, heads * depth] as ``name_heads``."""
    return [
        node("Reshape", [name, f"{heads}_heads"], [f"{name}_split"]),
        node("Transpose", [f"{name}_split"], [f"{name}_heads"], perm=permutation),
    ]


def merge(name: str) -> list[Any]:
    return [
        node("Transpose", [name], [f"{name}_back"], perm=[0, 2, 1, 3]),
        node("Reshape", [f"{name}_back", "merged"], ["y"]),
    ]


CONSTANTS = {
    "3_heads": np.array([0, 0, HEADS, DEPTH]),
    "1_heads": np.array([0, 0, 1, DEPTH]),
    "merged": np.array([0, 0, WIDTH]),
    "root": np.float32(DEPTH**-0.25),
    "scale": np.float32(DEPTH**-0.5),
    "inverse": np.float32(DEPTH**0.5),
    "minus_infinity": np.float32(-np.inf),
    "zero": np.float32(0),
    "fifty": np.float32(50),
}


def plain(score: list[Any], *, keys: list[int] | None = None, kv_heads: int = HEADS) -> list[Any]:
    """Attention with ``score`` nodes between ``product`` and ``scores``."""
    return [
        *split("q", [0, 2, 1, 3]),
        *split("k", keys or [0, 2, 3, 1], kv_heads),
        *split("v", [0, 2, 1, 3], kv_heads),
        node("MatMul", ["q_heads", "k_heads"], ["product"]),
        *score,
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v_heads"], ["context"]),
        *merge("context"),
    ]


def scaled_on_both_sides() -> list[Any]:
    """The decomposition of torch's scaled_dot_product_attention, with its guard of rows that see nothing."""
    return [
        *split("q", [0, 2, 1, 3]),
        *split("k", [0, 2, 1, 3]),
        *split("v", [0, 2, 1, 3]),
        node("Mul", ["q_heads", "root"], ["q_scaled"]),
        node("Transpose", ["k_heads"], ["k_turned"], perm=[0, 1, 3, 2]),
        node("Mul", ["k_turned", "root"], ["k_scaled"]),
        node("MatMul", ["q_scaled", "k_scaled"], ["product"]),
        node("Where", ["visible", "zero", "minus_infinity"], ["mask"]),
        node("Add", ["product", "mask"], ["scores"]),
        node("Softmax", ["scores"], ["raw"], axis=-1),
        node("IsNaN", ["raw"], ["none"]),
        node("Where", ["none", "zero", "raw"], ["weights"]),
        node("MatMul", ["weights", "v_heads"], ["context"]),
        *merge("context"),
    ]


def divided_and_selected() -> list[Any]:
    return plain(
        [
            node("Div", ["product", "inverse"], ["divided"]),
            node("Where", ["visible", "divided", "minus_infinity"], ["scores"]),
        ]
    )


def with_mask_over_keys() -> list[Any]:
    """As BERT adds it: [batch, 1, 1, keys]."""
    return plain(
        [node("Mul", ["product", "scale"], ["scaled"]), node("Add", ["scaled", "key_mask"], ["scores"])]
    )


def with_soft_cap() -> list[Any]:
    return plain(
        [
            node("Div", ["product", "fifty"], ["small"]),
            node("Tanh", ["small"], ["bounded"]),
            node("Mul", ["fifty", "bounded"], ["capped"]),
            node("Add", ["key_mask", "capped"], ["scores"]),
        ]
    )


def without_mask() -> list[Any]:
    return plain([node("Mul", ["scale", "product"], ["scores"])])


def of_grouped_queries() -> list[Any]:
    """One head of K and V for all heads of Q, repeated as Llama-like models export it."""
    repeat = [
        step
        for name in ("k", "v")
        for step in (
            *split(name, [0, 2, 1, 3], 1),
            node("Unsqueeze", [f"{name}_heads", "two"], [f"{name}_wide"]),
            node("Expand", [f"{name}_wide", "repeated"], [f"{name}_many"]),
            node("Reshape", [f"{name}_many", "back"], [f"{name}_all"]),
        )
    ]
    return [
        *split("q", [0, 2, 1, 3]),
        *repeat,
        node("Transpose", ["k_all"], ["k_turned"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q_heads", "k_turned"], ["product"]),
        node("Mul", ["product", "scale"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v_all"], ["context"]),
        *merge("context"),
    ]


def flat_heads() -> list[Any]:
    """Batched products of three axes."""
    return [
        node("Transpose", ["k"], ["k_turned"], perm=[0, 2, 1]),
        node("MatMul", ["q", "k_turned"], ["product"]),
        node("Mul", ["product", "scale"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v"], ["y"]),
    ]


FORMS = {
    form.__name__: form
    for form in (
        scaled_on_both_sides,
        divided_and_selected,
        with_mask_over_keys,
        with_soft_cap,
        without_mask,
        of_grouped_queries,
        flat_heads,
    )
}


def model_of(make_model: Any, nodes: list[Any], *, kv_width: int = WIDTH, length: Any = "s") -> Any:
    used = {name for one in nodes for name in one.input}
    optional = {"visible": ([1, 1, length, length], "bool"), "key_mask": ["b", 1, 1, length]}
    constants = {
        **CONSTANTS,
        "two": np.array([2]),
        "repeated": np.array([1, 1, HEADS, 1, 1]),
        "back": np.array([0, HEADS, -1, DEPTH]),
    }
    return make_model(
        nodes,
        {
            "q": ["b", length, WIDTH],
            "k": ["b", length, kv_width],
            "v": ["b", length, kv_width],
            **{name: what for name, what in optional.items() if name in used},
        },
        {"y": ["b", length, WIDTH]},
        {name: value for name, value in constants.items() if name in used},
    )


def inputs_of(model: Any, batch: int, length: int) -> dict[str, Any]:
    sizes = {"b": batch, "s": length}
    shapes = {
        i.name: [d.dim_value or sizes[d.dim_param] for d in i.type.tensor_type.shape.dim]
        for i in model.graph.input
    }
    inputs = {name: random(*shape) for name, shape in shapes.items() if name in ("q", "k", "v")}
    if "visible" in shapes:
        inputs["visible"] = np.tril(np.ones((1, 1, length, length), bool))
        if any(one.op_type == "IsNaN" for one in model.graph.node):
            inputs["visible"][..., length // 2, :] = False
    if "key_mask" in shapes:
        inputs["key_mask"] = np.where(random(batch, 1, 1, length) > 1, np.finfo(np.float32).min, 0).astype(
            "f4"
        )
    return inputs


def fused(model: Any) -> tuple[int, int]:
    """The number of attention kernels, and of softmax operators left, after the passes on the graph."""
    from tvm import relax

    from assay.compile.importer import import_onnx
    from assay.compile.passes.attention import fuse_attention
    from assay.compile.passes.graph import is_call
    from assay.compile.passes.horizontal import join_projections
    from assay.compile.passes.normalize import normalize

    module = fuse_attention(join_projections(normalize(import_onnx(model))))
    calls: list[Any] = []
    relax.analysis.post_order_visit(module["main"], calls.append)
    kernels = [c.args[0].name_hint for c in calls if is_call(c, "call_tir")]
    return sum(name.startswith("attention") for name in kernels), sum(is_call(c, "nn.softmax") for c in calls)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_attention_is_recognized(make_model: Any, agree: Any, form: Callable[[], list[Any]]) -> None:
    grouped = form is of_grouped_queries
    model = model_of(make_model, form(), kv_width=DEPTH if grouped else WIDTH)
    assert fused(model) == (1, 0)
    agree(model, inputs_of(model, 2, 7))


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 7, 129])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_attention_of_a_known_length(
    make_model: Any, agree: Any, form: Callable[[], list[Any]], length: int
) -> None:
    grouped = form is of_grouped_queries
    model = model_of(make_model, form(), kv_width=DEPTH if grouped else WIDTH, length=length)
    assert fused(model) == (1, 0)
    agree(model, inputs_of(model, 1, length))


def test_a_mask_of_zeros_is_dropped(make_model: Any) -> None:
    nodes = plain([node("Add", ["product", "nothing"], ["scores"])])
    model = model_of(make_model, nodes, length=5)
    zeros = onnx.numpy_helper.from_array(np.zeros((1, 1, 5, 5), np.float32), "nothing")
    model.graph.initializer.append(zeros)
    from assay.compile.importer import import_onnx
    from assay.compile.passes.attention import fuse_attention

    script = fuse_attention(import_onnx(model)).script()
    assert "attention" in script
    assert "modified" not in script


def test_weights_that_are_an_output_are_kept(make_model: Any) -> None:
    model = model_of(make_model, without_mask())
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("weights", onnx.TensorProto.FLOAT, ["b", HEADS, "s", "s"])
    )
    assert fused(model) == (0, 1)


def test_softmax_over_another_axis_is_no_attention(make_model: Any) -> None:
    nodes = without_mask()
    (softmax,) = [one for one in nodes if one.op_type == "Softmax"]
    softmax.attribute[0].i = 1
    assert fused(model_of(make_model, nodes)) == (0, 1)


def test_heads_are_read_where_they_are(make_model: Any) -> None:
    """No copies beside the kernel: not of the heads, nor of repeated ones, nor of the result."""
    from tvm import relax

    from assay.compile.importer import import_onnx
    from assay.compile.passes.attention import fuse_attention
    from assay.compile.passes.graph import is_call
    from assay.compile.passes.normalize import normalize

    model = model_of(make_model, of_grouped_queries(), kv_width=DEPTH)
    module = fuse_attention(normalize(import_onnx(model)))
    calls: list[Any] = []
    relax.analysis.post_order_visit(module["main"], calls.append)
    operators = {c.op.name for c in calls if is_call(c, *(["permute_dims", "broadcast_to", "strided_slice"]))}
    assert operators == set()


@pytest.mark.slow
def test_debug_keeps_operators_apart(make_model: Any, agree: Any) -> None:
    model = model_of(make_model, with_mask_over_keys())
    agree(model, inputs_of(model, 1, 7), profile="debug")
