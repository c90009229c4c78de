"""A decoder layer as exports of Llama-like models have it, in small, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

WIDTH, HEADS, KV_HEADS, DEPTH, HIDDEN = 24, 4, 2, 6, 40


def random(*shape: int) -> Any:
    generator = np.random.default_rng(sum(shape))
    return (generator.standard_normal(shape) * shape[0] ** -0.5).astype(np.float32)


class Graph:
    """Nodes and weights as they are written down."""

    def __init__(self) -> None:
        frequencies = 10000.0 ** (-np.arange(0, DEPTH, 2) / DEPTH)
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {
            "two": np.float32(2),
            "epsilon": np.float32(1e-5),
            "frequencies": frequencies.astype(np.float32)[None, :, None],
            "start": np.array([0]),
            "half": np.array([DEPTH // 2]),
            "end": np.array([2**63 - 1]),
            "axis1": np.array([1]),
            "axis2": np.array([2]),
            "last": np.array([-1]),
            "q_heads": np.array([0, 0, HEADS, DEPTH]),
            "kv_heads": np.array([0, 0, KV_HEADS, DEPTH]),
            "merged": np.array([0, 0, HEADS * DEPTH]),
            "repeats": np.array([1, 1, HEADS // KV_HEADS, 1, 1]),
            "all_heads": np.array([0, HEADS, -1, DEPTH]),
            "scale": np.float32(DEPTH**-0.5),
        }

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def weight(self, *shape: int) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights[name] = random(*shape) + (1 if len(shape) == 1 else 0)
        return name

    def rms_norm(self, x: str) -> str:
        mean = self.add("ReduceMean", [self.add("Pow", [x, "two"]), "last"])
        inverse = self.add("Reciprocal", [self.add("Sqrt", [self.add("Add", [mean, "epsilon"])])])
        return self.add("Mul", [self.weight(WIDTH), self.add("Mul", [x, inverse])])

    def rotary_tables(self) -> tuple[str, str]:
        positions = self.add("Cast", [self.add("Unsqueeze", ["positions", "axis1"])], to=1)
        angles = self.add("Transpose", [self.add("MatMul", ["frequencies", positions])], perm=[0, 2, 1])
        both = self.add("Concat", [angles, angles], axis=-1)
        cosine, sine = (self.add("Unsqueeze", [self.add(kind, [both]), "axis1"]) for kind in ("Cos", "Sin"))
        return cosine, sine

    def rotate(self, x: str, tables: tuple[str, str]) -> str:
        low = self.add("Slice", [x, "start", "half", "last"])
        high = self.add("Neg", [self.add("Slice", [x, "half", "end", "last"])])
        turned = self.add("Concat", [high, low], axis=-1)
        return self.add("Add", [self.add("Mul", [x, tables[0]]), self.add("Mul", [turned, tables[1]])])

    def heads(self, x: str, count: int) -> str:
        product = self.add("MatMul", [x, self.weight(WIDTH, count * DEPTH)])
        split = self.add("Reshape", [product, "q_heads" if count == HEADS else "kv_heads"])
        return self.add("Transpose", [split], perm=[0, 2, 1, 3])

    def repeat(self, x: str) -> str:
        wide = self.add("Expand", [self.add("Unsqueeze", [x, "axis2"]), "repeats"])
        return self.add("Reshape", [wide, "all_heads"])

    def attention(self, x: str, tables: tuple[str, str]) -> str:
        q, k, v = self.heads(x, HEADS), self.heads(x, KV_HEADS), self.heads(x, KV_HEADS)
        q, k = self.rotate(q, tables), self.rotate(k, tables)
        turned = self.add("Transpose", [self.repeat(k)], perm=[0, 1, 3, 2])
        scores = self.add("Mul", [self.add("MatMul", [q, turned]), "scale"])
        weights = self.add("Softmax", [self.add("Add", [scores, "mask"])], axis=-1)
        context = self.add("MatMul", [weights, self.repeat(v)])
        merged = self.add("Reshape", [self.add("Transpose", [context], perm=[0, 2, 1, 3]), "merged"])
        return self.add("MatMul", [merged, self.weight(HEADS * DEPTH, WIDTH)])

    def feed_forward(self, x: str) -> str:
        gate, up = (self.add("MatMul", [x, self.weight(WIDTH, HIDDEN)]) for _ in range(2))
        active = self.add("Mul", [gate, self.add("Sigmoid", [gate])])
        return self.add("MatMul", [self.add("Mul", [active, up]), self.weight(HIDDEN, WIDTH)])


@pytest.fixture(scope="module")
def decoder(make_model: Any) -> Any:
    graph = Graph()
    tables = graph.rotary_tables()
    x = graph.add("Add", ["x", graph.attention(graph.rms_norm("x"), tables)])
    x = graph.add("Add", [x, graph.feed_forward(graph.rms_norm(x))])
    graph.nodes.append(onnx.helper.make_node("Identity", [x], ["y"]))
    used = {name for one in graph.nodes for name in one.input}
    return make_model(
        graph.nodes,
        {"x": ["b", "s", WIDTH], "positions": (["b", "s"], "int64"), "mask": ["b", 1, "s", "s"]},
        {"y": ["b", "s", WIDTH]},
        {name: value for name, value in graph.weights.items() if name in used},
    )


def inputs(batch: int, length: int) -> dict[str, Any]:
    mask = np.triu(np.full((length, length), np.finfo(np.float32).min, np.float32), 1)
    return {
        "x": random(batch, length, WIDTH),
        "positions": np.tile(np.arange(3, 3 + length), (batch, 1)),
        "mask": np.tile(mask, (batch, 1, 1, 1)),
    }


def test_decoder_layer(decoder: Any, agree: Any) -> None:
    agree(decoder, inputs(2, 7))


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 33])
def test_decoder_layer_of_other_lengths(decoder: Any, agree: Any, length: int) -> None:
    agree(decoder, inputs(1, length))


def test_kernels_of_a_decoder_layer(decoder: Any, tvm: Any) -> None:
    """One kernel for both norms, one rotation each for q and k, attention; gate and up with their SiLU."""
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles
    from assay.compile.targets import targets

    lowered = lower(
        import_onnx(decoder),
        target=targets()["x86-64-v3"],
        profile=profiles()["release"],
        sizes={"b": 1, "s": 8},
        maxima={"b": 2, "s": 64},
    )
    names = sorted(lowered.kernels)
    assert not any("softmax" in name or "mean" in name or "expand" in name for name in names)
    assert sum("attention" in name for name in names) == 1
    assert sum("negative" in name for name in names) == 2
    assert sum("rms_norm" in name for name in names) == 1
    assert any("sigmoid_multiply" in name and "matmul" in name for name in names)
