"""Small decoders of random numbers in canonical form, as ONNX made by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from assay.models.decoders.spec import DecoderSpec
from assay.models.providers import OnnxFile
from assay.models.spec import DType, InputSpec, ModelSpec, SymbolicDim, Weights


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A decoder: like Llama with ``rotary``, like GPT-2 without."""

    rotary: bool = True
    vocabulary: int = 97
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    hidden: int = 48
    inner: int = 64
    context: int = 256
    window: int | None = None
    softcap: float = 0.0
    packed: bool = False
    seed: int = 0

    @property
    def spec(self) -> DecoderSpec:
        return DecoderSpec(
            architecture="llama" if self.rotary else "gpt2",
            vocabulary=self.vocabulary,
            context_length=self.context,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            window=self.window,
        )

    def model(self) -> onnx.ModelProto:
        return _Graph(self).model()


class _Graph:
    def __init__(self, tiny: Tiny) -> None:
        self.t = tiny
        self.generator = np.random.default_rng(tiny.seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, array: Any) -> str:
        self.weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def random(self, name: str, *shape: int, scale: float = 1.0, offset: float = 0.0) -> str:
        values = offset + scale * self.generator.standard_normal(shape)
        return self.constant(name, values.astype(np.float32))

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def norm(self, x: str, name: str) -> str:
        weight = self.random(f"{name}.weight", self.t.hidden, scale=0.1, offset=1.0)
        if self.t.rotary:
            return self.node("RMSNormalization", [x, weight], name, axis=-1, epsilon=1e-5)
        bias = self.random(f"{name}.bias", self.t.hidden, scale=0.1)
        return self.node("LayerNormalization", [x, weight, bias], name, axis=-1, epsilon=1e-5)

    def linear(self, x: str, name: str, rows: int, columns: int) -> str:
        weight = self.random(f"{name}.weight", rows, columns, scale=rows**-0.5)
        product = self.node("MatMul", [x, weight], f"{name}.product" if not self.t.rotary else name)
        if self.t.rotary:
            return product
        return self.node("Add", [product, self.random(f"{name}.bias", columns, scale=0.1)], name)

    def attention(self, x: str, layer: int) -> str:
        t = self.t
        q, kv = t.heads * t.head_dim, t.kv_heads * t.head_dim
        if t.packed:
            qkv = [self.linear(x, f"{layer}.qkv", t.hidden, q + 2 * kv), "", ""]
        else:
            qkv = [self.linear(x, f"{layer}.{n}", t.hidden, c) for n, c in (("q", q), ("k", kv), ("v", kv))]
        past = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
        present = [f"present.{layer}.{kind}" for kind in ("key", "value")]
        tables = ["cosines", "sines"] if t.rotary else []
        options: dict[str, Any] = {"do_rotary": 1} if t.rotary else {}
        if t.window is not None:
            options["local_window_size"] = t.window
        if t.softcap:
            options["softcap"] = t.softcap
        attended = f"{layer}.attended"
        self.nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [*qkv, *past, "seqlens_k", "total_length", *tables],
                [attended, *present],
                name=attended,
                domain="com.microsoft",
                num_heads=t.heads,
                kv_num_heads=t.kv_heads,
                **options,
            )
        )
        return self.linear(attended, f"{layer}.o", q, t.hidden)

    def feed_forward(self, x: str, layer: int) -> str:
        t = self.t
        up = self.linear(x, f"{layer}.up", t.hidden, t.inner)
        if t.rotary:
            gate = self.linear(x, f"{layer}.gate", t.hidden, t.inner)
            sigmoid = self.node("Sigmoid", [gate], f"{layer}.sigmoid")
            silu = self.node("Mul", [gate, sigmoid], f"{layer}.silu")
            inner = self.node("Mul", [silu, up], f"{layer}.inner")
        else:
            inner = self.node("Gelu", [up], f"{layer}.inner", approximate="tanh")
        return self.linear(inner, f"{layer}.down", t.inner, t.hidden)

    def lengths(self) -> None:
        self.constant("one", np.array([1], np.int64))
        self.constant("index_one", np.array(1, np.int64))
        self.node("ReduceSum", ["attention_mask", "one"], "length", keepdims=0)
        self.node("Sub", ["length", "one"], "length_less_one")
        self.node("Cast", ["length_less_one"], "seqlens_k", to=onnx.TensorProto.INT32)
        self.node("Shape", ["attention_mask"], "mask_shape")
        self.node("Gather", ["mask_shape", "index_one"], "total", axis=0)
        self.node("Cast", ["total"], "total_length", to=onnx.TensorProto.INT32)

    def model(self) -> onnx.ModelProto:
        t = self.t
        self.lengths()
        table = self.random("embedding", t.vocabulary, t.hidden)
        x = self.node("Gather", [table, "input_ids"], "embedded")
        if t.rotary:
            angles = np.outer(np.arange(t.context), 10_000.0 ** -(np.arange(0, t.head_dim, 2) / t.head_dim))
            self.constant("cosines", np.cos(angles).astype(np.float32))
            self.constant("sines", np.sin(angles).astype(np.float32))
        else:
            positions = self.random("positions", t.context, t.hidden, scale=0.3)
            x = self.node("Add", [x, self.node("Gather", [positions, "position_ids"], "placed")], "start")
        for layer in range(t.layers):
            x = self.node(
                "Add", [x, self.attention(self.norm(x, f"{layer}.norm1"), layer)], f"{layer}.middle"
            )
            x = self.node(
                "Add", [x, self.feed_forward(self.norm(x, f"{layer}.norm2"), layer)], f"{layer}.end"
            )
        head = self.random("head", t.hidden, t.vocabulary, scale=t.hidden**-0.5)
        self.node("MatMul", [self.norm(x, "norm"), head], "logits")
        return self._assembled()

    def _assembled(self) -> onnx.ModelProto:
        t = self.t
        integer, real = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
        declare = helper.make_tensor_value_info
        ids = ["input_ids"] if t.rotary else ["input_ids", "position_ids"]
        inputs = [declare(name, integer, ["batch", "tokens"]) for name in ids]
        inputs.append(declare("attention_mask", integer, ["batch", "total"]))
        outputs = [declare("logits", real, ["batch", "tokens", t.vocabulary])]
        for layer in range(t.layers):
            for kind in ("key", "value"):
                past, total = (["batch", t.kv_heads, n, t.head_dim] for n in ("past", "total"))
                inputs.append(declare(f"past_key_values.{layer}.{kind}", real, past))
                outputs.append(declare(f"present.{layer}.{kind}", real, total))
        graph = helper.make_graph(self.nodes, "tiny", inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)


def model_spec(tiny: Tiny, folder: Path, **decoder: Any) -> ModelSpec:
    """The decoder as a model that a build takes; ``decoder``: changes to its ``DecoderSpec``."""
    path = folder / "tiny.onnx"
    onnx.save_model(tiny.model(), path)
    batch = SymbolicDim(name="batch", default=1, maximum=4)
    tokens = SymbolicDim(name="tokens", default=8, maximum=tiny.context)
    past = SymbolicDim(name="past", default=8, minimum=1, maximum=tiny.context)
    total = SymbolicDim(name="total", default=16, maximum=tiny.context)
    inputs = [InputSpec(name="input_ids", dtype=DType.INT64, shape=(batch, tokens))]
    if not tiny.rotary:
        inputs.append(InputSpec(name="position_ids", dtype=DType.INT64, shape=(batch, tokens)))
    inputs.append(InputSpec(name="attention_mask", dtype=DType.INT64, shape=(batch, total)))
    inputs += [
        InputSpec(
            name=f"past_key_values.{layer}.{kind}",
            dtype=DType.FLOAT32,
            shape=(batch, tiny.kv_heads, past, tiny.head_dim),
        )
        for layer in range(tiny.layers)
        for kind in ("key", "value")
    ]
    return ModelSpec(
        name="tiny",
        description="A small decoder of random numbers.",
        provider=OnnxFile(path=path),
        inputs=tuple(inputs),
        weights=Weights.RANDOM,
        licence="Apache-2.0",
        decoder=replace(tiny.spec, **decoder),
    )


def logits_of(tiny: Tiny, ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Logits [tokens, vocabulary] of one sequence, in float64 from the definitions; all scores at once."""
    weights = {
        w.name: onnx.numpy_helper.to_array(w).astype(np.float64) for w in tiny.model().graph.initializer
    }

    def norm(x: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
        x = x if tiny.rotary else x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"]
        return x + weights.get(f"{name}.bias", 0.0)

    def linear(x: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
        product: npt.NDArray[Any] = x @ weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0.0)
        return product

    x = weights["embedding"][ids]
    if not tiny.rotary:
        x = x + weights["positions"][: len(ids)]
    for layer in range(tiny.layers):
        x = x + linear(_attended(tiny, weights, norm(x, f"{layer}.norm1"), layer, linear), f"{layer}.o")
        h = norm(x, f"{layer}.norm2")
        up = linear(h, f"{layer}.up")
        if tiny.rotary:
            gate = linear(h, f"{layer}.gate")
            inner = gate / (1 + np.exp(-gate)) * up
        else:
            inner = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        x = x + linear(inner, f"{layer}.down")
    logits: npt.NDArray[Any] = norm(x, "norm") @ weights["head"]
    return logits


def _attended(tiny: Tiny, weights: Any, x: npt.NDArray[Any], layer: int, linear: Any) -> npt.NDArray[Any]:
    count, dim = len(x), tiny.head_dim
    if tiny.packed:
        qkv = linear(x, f"{layer}.qkv")
    else:
        qkv = np.concatenate([linear(x, f"{layer}.{name}") for name in "qkv"], axis=-1)
    heads = qkv.reshape(count, -1, dim)
    q, k, v = np.split(heads, [tiny.heads, tiny.heads + tiny.kv_heads], axis=1)
    if tiny.rotary:
        cosine, sine = (weights[name][:count, None] for name in ("cosines", "sines"))

        def turn(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
            first, second = np.split(a, 2, axis=-1)
            return np.concatenate([first * cosine - second * sine, first * sine + second * cosine], -1)

        q, k = turn(q), turn(k)
    k, v = (np.repeat(a, tiny.heads // tiny.kv_heads, axis=1) for a in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(dim)
    if tiny.softcap:
        scores = tiny.softcap * np.tanh(scores / tiny.softcap)
    distance = np.arange(count)[:, None] - np.arange(count)
    seen = (distance >= 0) & (distance < (tiny.window or count))
    scores = np.where(seen, scores, -np.inf)
    probabilities = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    attended: npt.NDArray[Any] = np.einsum("hij,jhd->ihd", probabilities, v).reshape(count, -1)
    return attended
