from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

node = onnx.helper.make_node


def random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def projection(name: str, heads: int, *, bias: bool) -> list[Any]:
    made = f"{name}_product" if bias else name
    nodes = [node("MatMul", ["x", f"{name}_weight"], [made])]
    if bias:
        nodes.append(node("Add", [made, f"{name}_bias"], [name]))
    return [
        *nodes,
        node("Reshape", [name, f"{heads}_heads"], [f"{name}_split"]),
        node("Transpose", [f"{name}_split"], [f"{name}_heads"], perm=[0, 2, 1, 3]),
    ]


def encoder(make_model: Any, *, kv_heads: int, biases: str) -> Any:
    """x [b, s, 20] to heads of 8: attention of 4 query heads, or the three projections as outputs."""
    counts = {"q": 4, "k": kv_heads, "v": kv_heads}
    weights: dict[str, Any] = {"4_heads": np.array([0, 0, 4, 8]), "2_heads": np.array([0, 0, 2, 8])}
    nodes = []
    for name, count in counts.items():
        nodes += projection(name, count, bias=name in biases)
        weights[f"{name}_weight"] = random(20, 8 * count)
        weights[f"{name}_bias"] = random(8 * count)
    used = {name for one in nodes for name in one.input}
    outputs = {f"{name}_heads": ["b", count, "s", 8] for name, count in counts.items()}
    if kv_heads == 4:
        weights["merged"] = np.array([0, 0, 32])
        nodes += [
            node("Transpose", ["k_heads"], ["turned"], perm=[0, 1, 3, 2]),
            node("MatMul", ["q_heads", "turned"], ["scores"]),
            node("Softmax", ["scores"], ["weights"], axis=-1),
            node("MatMul", ["weights", "v_heads"], ["context"]),
            node("Transpose", ["context"], ["back"], perm=[0, 2, 1, 3]),
            node("Reshape", ["back", "merged"], ["y"]),
        ]
        used.add("merged")
        outputs = {"y": ["b", "s", 32]}
    return make_model(nodes, {"x": ["b", "s", 20]}, outputs, {n: w for n, w in weights.items() if n in used})


def operators(model: Any) -> list[str]:
    from tvm import relax

    from assay.compile.importer import import_onnx
    from assay.compile.passes.graph import is_call
    from assay.compile.passes.horizontal import join_projections
    from assay.compile.passes.normalize import normalize

    module = join_projections(normalize(import_onnx(model)))
    calls: list[Any] = []
    relax.analysis.post_order_visit(module["main"], calls.append)
    return [c.op.name.removeprefix("relax.") for c in calls if is_call(c, "matmul", "add", "split")]


@pytest.mark.parametrize("biases", ["", "qkv", "q"], ids=["no bias", "biases", "a bias of one"])
def test_projections_for_attention_are_joined(make_model: Any, agree: Any, biases: str) -> None:
    model = encoder(make_model, kv_heads=4, biases=biases)
    assert operators(model) == ["matmul", *(["add"] if biases else []), "matmul", "matmul"]
    agree(model, {"x": random(2, 7, 20)})


def test_projections_of_grouped_queries_are_joined(make_model: Any, agree: Any) -> None:
    """Unequal widths; the heads are outputs, which attention does not read in place."""
    model = encoder(make_model, kv_heads=2, biases="qkv")
    assert operators(model) == ["matmul", "add"]
    agree(model, {"x": random(1, 5, 20)})


def test_columns_that_are_split_are_taken_by_heads(make_model: Any, agree: Any) -> None:
    """As GPT-2 has it: one projection, split in three, then into heads."""
    weights = {"heads": np.array([0, 0, 4, 8]), "w": random(20, 96)}
    nodes = [
        node("MatMul", ["x", "w"], ["wide"]),
        node("Split", ["wide"], ["q", "k", "v"], axis=2, num_outputs=3),
        *(node("Reshape", [n, "heads"], [f"{n}_heads"]) for n in "qkv"),
    ]
    outputs = {f"{n}_heads": ["b", "s", 4, 8] for n in "qkv"}
    model = make_model(nodes, {"x": ["b", "s", 20]}, outputs, weights)
    assert operators(model) == ["matmul"]
    agree(model, {"x": random(2, 3, 20)})


def test_a_projection_that_is_also_an_output_stays_apart(make_model: Any) -> None:
    model = encoder(make_model, kv_heads=4, biases="")
    model.graph.output.append(onnx.helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, ["b", "s", 32]))
    assert operators(model).count("matmul") == 4


def test_products_of_different_operands_stay_apart(make_model: Any) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "v"], ["b"]),
        node("Reshape", ["b", "heads"], ["y"]),
    ]
    weights = {"w": random(8, 8), "v": random(8, 8), "heads": np.array([0, 0, 2, 4])}
    model = make_model(nodes, {"x": ["b", "s", 8]}, {"y": ["b", "s", 2, 4]}, weights)
    assert operators(model) == ["matmul", "matmul"]
