"""The parts of a decoder layer as nodes: norms, attention over a cache, feed-forward part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.errors import ModelError
from assay.models.decoders.check import ResolvedPart, ResolvedWeights
from assay.models.decoders.config import Activation, DecoderConfig, Norm
from assay.models.decoders.graph import MICROSOFT, Graph
from assay.models.decoders.mapping import Role
from assay.models.decoders.transforms import join_rows, transform
from assay.models.decoders.weights import BlockQuantized, DecoderWeights, Tensor, dequantize

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Cache", "LayerBuilder", "WeightReader"]


class WeightReader:
    """Weights by role, in our layout."""

    def __init__(self, config: DecoderConfig, weights: DecoderWeights, resolved: ResolvedWeights) -> None:
        self._config = config
        self._weights = weights
        self._resolved = resolved

    def has(self, role: Role, layer: int | None = None) -> bool:
        """Whether the model has this weight."""
        return bool(self._resolved.parts(role, layer))

    def parts(self, role: Role, layer: int | None = None) -> list[Tensor]:
        """The tensors whose rows, one after the other, are this weight: one where they are stored alike."""
        parts = [self._read(part) for part in self._resolved.parts(role, layer)]
        joined = join_rows(parts)
        return parts if joined is None else [joined]

    def matrix(self, role: Role, layer: int | None = None) -> Tensor:
        """A weight that is one tensor."""
        (tensor,) = self.parts(role, layer)
        return tensor

    def vector(self, role: Role, layer: int | None = None) -> npt.NDArray[Any]:
        """A norm's weight, a bias or rotary factors, float32 [elements]."""
        import numpy as np

        arrays = [self._read(part) for part in self._resolved.parts(role, layer)]
        plain = [array.astype(np.float32) for array in arrays if not isinstance(array, BlockQuantized)]
        return np.concatenate(plain)

    def _read(self, resolved: ResolvedPart) -> Tensor:
        tensor = self._weights.read(resolved.name)
        expected = tuple(self._config.size(size) for size in resolved.part.shape)
        if tuple(tensor.shape) != expected:
            raise ModelError(
                f"The tensor {resolved.name!r} was said to have the shape {expected}; it has {tensor.shape}."
            )
        if isinstance(tensor, BlockQuantized) and tensor.bits == 8 and tensor.zero_points is not None:
            # ONNX Runtime has no product of 8 bits with float zero points.
            tensor = dequantize(tensor)
        return transform(tensor, resolved.part.transform, head_dim=self._config.head_dim, name=resolved.name)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Values that attention of every layer reads: lengths, and tables of rotation where there are any."""

    seqlens_k: str
    total_sequence_length: str
    cos: str = ""
    sin: str = ""


class LayerBuilder:
    """Adds decoder layers to a graph."""

    def __init__(self, graph: Graph, config: DecoderConfig, reader: WeightReader, cache: Cache) -> None:
        self._graph = graph
        self._config = config
        self._reader = reader
        self._cache = cache

    def layer(self, x: str, layer: int) -> str:
        """The residual stream [batch, tokens, hidden] after ``layer``, of ``x`` before it."""
        config, graph = self._config, self._graph
        at = f"layers.{layer}"
        normed = self.norm(x, Role.INPUT_NORM, Role.INPUT_NORM_BIAS, layer)
        attended = self._attention(normed, layer)
        if config.post_norms:
            attended = self.norm(attended, Role.POST_ATTENTION_NORM, None, layer)
        x = graph.add(x, attended, f"{at}.residual")
        if not config.parallel:
            normed = self.norm(x, Role.FFN_NORM, Role.FFN_NORM_BIAS, layer)
        fed = self._feed_forward(normed, layer)
        if config.post_norms:
            fed = self.norm(fed, Role.POST_FFN_NORM, None, layer)
        return graph.add(x, fed, f"{at}.hidden")

    def norm(self, x: str, role: Role, bias: Role | None, layer: int | None = None) -> str:
        """``x`` normalized over its last axis."""
        config, graph = self._config, self._graph
        weight = graph.vector(role.value.format(layer=layer), self._reader.vector(role, layer))
        output = role.value.format(layer=layer).removesuffix(".weight")
        if config.norm is Norm.RMS:
            return graph.node("RMSNormalization", [x, weight], output, axis=-1, epsilon=config.norm_epsilon)
        assert bias is not None
        shift = graph.vector(bias.value.format(layer=layer), self._reader.vector(bias, layer))
        return graph.node(
            "LayerNormalization", [x, weight, shift], output, axis=-1, epsilon=config.norm_epsilon
        )

    def _attention(self, x: str, layer: int) -> str:
        config, cache = self._config, self._cache
        at = f"layers.{layer}"
        query, key, value = self._projections(x, layer)
        attributes: dict[str, Any] = {"num_heads": config.heads, "kv_num_heads": config.kv_heads}
        window = config.window_of(layer)
        if window is not None:
            attributes["local_window_size"] = window
        if config.attention_scale is not None:
            attributes["scale"] = config.attention_scale
        if config.attention_softcap is not None:
            attributes["softcap"] = config.attention_softcap
        past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        inputs = [query, key, value, *past, cache.seqlens_k, cache.total_sequence_length]
        if config.rope is not None:
            attributes |= {"do_rotary": 1, "rotary_interleaved": 0}
            inputs += [cache.cos, cache.sin]
        attended = self._graph.node(
            "GroupQueryAttention",
            inputs,
            [f"{at}.attention", f"present.{layer}.key", f"present.{layer}.value"],
            domain=MICROSOFT,
            **attributes,
        )
        return self._linear(attended, Role.OUTPUT, Role.OUTPUT_BIAS, layer)

    def _projections(self, x: str, layer: int) -> tuple[str, str, str]:
        """Queries, keys and values: packed into one value, or three where their weights differ in form."""
        config = self._config
        parts = self._reader.parts(Role.QKV, layer)
        if len(parts) == 1:
            return self._product(x, parts[0], Role.QKV, Role.QKV_BIAS, layer), "", ""
        import numpy as np

        rows = config.heads * config.head_dim, config.kv_heads * config.head_dim
        biases: Sequence[npt.NDArray[Any] | None] = (None, None, None)
        if self._reader.has(Role.QKV_BIAS, layer):
            biases = np.split(self._reader.vector(Role.QKV_BIAS, layer), [rows[0], rows[0] + rows[1]])
        outputs = []
        for letter, part, bias in zip("qkv", parts, biases, strict=True):
            name = f"layers.{layer}.{letter}"
            product = self._graph.linear(
                x, part, f"{name}.weight", name if bias is None else f"{name}.product"
            )
            if bias is not None:
                product = self._graph.add(product, self._graph.vector(f"{name}.bias", bias), name)
            outputs.append(product)
        query, key, value = outputs
        return query, key, value

    def _feed_forward(self, x: str, layer: int) -> str:
        config, graph = self._config, self._graph
        at = f"layers.{layer}"
        if not config.gated:
            up = self._linear(x, Role.UP, Role.UP_BIAS, layer)
            return self._linear(self._activation(up, f"{at}.activated"), Role.DOWN, Role.DOWN_BIAS, layer)
        parts = self._reader.parts(Role.UP, layer)
        if len(parts) == 1:
            both = self._product(x, parts[0], Role.UP, Role.UP_BIAS, layer)
            graph.node("Split", [both], [f"{at}.gate_half", f"{at}.up_half"], axis=-1, num_outputs=2)
            gate, up = f"{at}.gate_half", f"{at}.up_half"
        else:
            gate, up = (
                graph.linear(x, part, f"{at}.{name}_half.weight", f"{at}.{name}_half")
                for name, part in zip(("gate", "up"), parts, strict=True)
            )
        gated = graph.node("Mul", [self._activation(gate, f"{at}.activated"), up], f"{at}.gated")
        return self._linear(gated, Role.DOWN, Role.DOWN_BIAS, layer)

    def _activation(self, x: str, output: str) -> str:
        graph = self._graph
        match self._config.activation:
            case Activation.SILU:
                sigmoid = graph.node("Sigmoid", [x], f"{output}.sigmoid")
                return graph.node("Mul", [x, sigmoid], output)
            case Activation.GELU:
                return graph.node("Gelu", [x], output, approximate="none")
            case Activation.GELU_TANH:
                return graph.node("Gelu", [x], output, approximate="tanh")
            case Activation.RELU:
                return graph.node("Relu", [x], output)

    def _linear(self, x: str, role: Role, bias: Role, layer: int) -> str:
        return self._product(x, self._reader.matrix(role, layer), role, bias, layer)

    def _product(self, x: str, weight: Tensor, role: Role, bias: Role, layer: int) -> str:
        name = role.value.format(layer=layer)
        output = name.removesuffix(".weight")
        if not self._reader.has(bias, layer):
            return self._graph.linear(x, weight, name, output)
        product = self._graph.linear(x, weight, name, f"{output}.product")
        shift = self._graph.vector(bias.value.format(layer=layer), self._reader.vector(bias, layer))
        return self._graph.add(product, shift, output)
