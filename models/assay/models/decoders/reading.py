"""What the configurations of several architectures say alike."""

from __future__ import annotations

import math
from typing import TypedDict

from assay.models.decoders.config import Activation
from assay.models.decoders.fields import MOST_LAYERS, Fields
from assay.models.decoders.rope import Llama3Scaling, Rope, RopeFactors, YarnScaling

__all__ = [
    "GgufSizes",
    "HfSizes",
    "context_of_hf",
    "gguf_rope",
    "gguf_sizes",
    "gguf_vocabulary",
    "hf_activation",
    "hf_rope",
    "hf_sizes",
    "hf_window_layers",
]

_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
}


class HfSizes(TypedDict):
    """Arguments of DecoderConfig under the names that most of transformers' configurations have."""

    vocabulary: int
    context_length: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int


GgufSizes = HfSizes


def hf_sizes(fields: Fields) -> HfSizes:
    """The sizes of a ``config.json`` with Llama's keys."""
    heads = fields.count("num_attention_heads")
    hidden = fields.count("hidden_size")
    return HfSizes(
        vocabulary=fields.count("vocab_size"),
        context_length=context_of_hf(fields),
        hidden=hidden,
        layers=fields.count("num_hidden_layers", most=MOST_LAYERS),
        heads=heads,
        kv_heads=fields.count("num_key_value_heads", heads),
        head_dim=fields.count("head_dim", hidden // heads),
        ffn=fields.count("intermediate_size"),
    )


def context_of_hf(fields: Fields) -> int:
    """The most tokens of one sequence. LongRoPE's factors change where its original context ends."""
    length = fields.count("max_position_embeddings")
    rope = _hf_rope_fields(fields)
    if rope and _rope_type(rope) in ("longrope", "su"):
        return min(length, _original_context(fields, rope))
    return length


def hf_activation(fields: Fields, key: str = "hidden_act", default: str | None = None) -> Activation:
    """The activation under ``key``; raises ModelError for one that has no form here."""
    name = fields.text(key, default)
    if name not in _ACTIVATIONS:
        raise fields.unsupported(key, f"known activations are {', '.join(sorted(_ACTIVATIONS))}")
    return _ACTIVATIONS[name]


def hf_window_layers(fields: Fields) -> frozenset[int] | None:
    """Layers whose type is ``sliding_attention``; None where the configuration does not tell."""
    types = fields.list("layer_types")
    if types is None:
        return None
    if set(map(str, types)) - {"sliding_attention", "full_attention"}:
        raise fields.unsupported("layer_types", "layers are sliding_attention or full_attention")
    return frozenset(index for index, kind in enumerate(types) if kind == "sliding_attention")


def hf_rope(fields: Fields, head_dim: int, *, partial: float = 1.0) -> Rope:
    """Rotary embeddings, from ``rope_parameters`` or the older ``rope_scaling`` and ``rope_theta``."""
    rope = _hf_rope_fields(fields)
    theta = fields.positive("rope_theta", 10000.0)
    partial = fields.positive("partial_rotary_factor", partial)
    if rope is None:
        return Rope(theta=theta, dim=int(head_dim * partial))
    theta = rope.positive("rope_theta", theta)
    dim = int(head_dim * rope.positive("partial_rotary_factor", partial))
    kind = _rope_type(rope)
    if kind == "default":
        return Rope(theta=theta, dim=dim)
    if kind == "linear":
        return Rope(theta=theta, dim=dim, linear_factor=rope.positive("factor"))
    if kind == "llama3":
        llama3 = Llama3Scaling(
            factor=rope.positive("factor"),
            low_frequency_factor=rope.positive("low_freq_factor"),
            high_frequency_factor=rope.positive("high_freq_factor"),
            original_context=_original_context(fields, rope),
        )
        return Rope(theta=theta, dim=dim, scaling=llama3)
    if kind == "yarn" and not ("mscale" in rope or "mscale_all_dim" in rope or "truncate" in rope):
        factor = rope.positive("factor")
        yarn = YarnScaling(
            factor=factor,
            original_context=_original_context(fields, rope),
            beta_fast=rope.positive("beta_fast", 32.0),
            beta_slow=rope.positive("beta_slow", 1.0),
        )
        magnitude = rope.positive("attention_factor", _yarn_magnitude(factor))
        return Rope(theta=theta, dim=dim, scaling=yarn, magnitude=magnitude)
    if kind in ("longrope", "su"):
        factors = rope.positive_numbers("short_factor")
        if len(factors) != dim // 2:
            raise rope.unsupported("short_factor", f"{dim // 2} factors are needed, not {len(factors)}")
        original = _original_context(fields, rope)
        factor = rope.positive("factor", fields.count("max_position_embeddings") / original)
        magnitude = rope.positive("attention_factor", _longrope_magnitude(factor, original))
        return Rope(theta=theta, dim=dim, scaling=RopeFactors(factors=factors), magnitude=magnitude)
    raise rope.unsupported("rope_type", "known are default, linear, llama3, yarn without mscale, longrope")


def _hf_rope_fields(fields: Fields) -> Fields | None:
    return fields.group("rope_parameters") or fields.group("rope_scaling")


def _rope_type(rope: Fields) -> str:
    return rope.text("rope_type", rope.text("type", "default"))


def _original_context(fields: Fields, rope: Fields) -> int:
    key = "original_max_position_embeddings"
    return rope.count(key, fields.count(key, fields.count("max_position_embeddings")))


def _yarn_magnitude(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope_magnitude(factor: float, original: int) -> float:
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 < original else 1.0


def gguf_vocabulary(fields: Fields) -> int:
    """The vocabulary's size: the architecture's own key, or else how many tokens the tokenizer lists."""
    tokens = fields.under("tokenizer.ggml.").list("tokens")
    return fields.count("vocab_size", len(tokens) if tokens else None)


def gguf_sizes(fields: Fields) -> GgufSizes:
    """The sizes of a GGUF header, whose keys are the same for every architecture."""
    heads = fields.count("attention.head_count")
    hidden = fields.count("embedding_length")
    return GgufSizes(
        vocabulary=gguf_vocabulary(fields),
        context_length=fields.count("context_length"),
        hidden=hidden,
        layers=fields.count("block_count", most=MOST_LAYERS),
        heads=heads,
        kv_heads=fields.count("attention.head_count_kv", heads),
        head_dim=fields.count("attention.key_length", hidden // heads),
        ffn=fields.count("feed_forward_length"),
    )


def gguf_rope(fields: Fields, head_dim: int) -> Rope:
    """Rotary embeddings of a GGUF header; factors that are stored as a tensor are read with the weights."""
    theta = fields.positive("rope.freq_base", 10000.0)
    dim = fields.count("rope.dimension_count", head_dim)
    kind = fields.text("rope.scaling.type", "none")
    if kind == "none":
        return Rope(theta=theta, dim=dim)
    if kind == "linear":
        return Rope(theta=theta, dim=dim, linear_factor=fields.positive("rope.scaling.factor"))
    if kind == "yarn":
        factor = fields.positive("rope.scaling.factor")
        yarn = YarnScaling(
            factor=factor, original_context=fields.count("rope.scaling.original_context_length")
        )
        magnitude = _yarn_magnitude(factor) * fields.positive("rope.scaling.attn_factor", 1.0)
        return Rope(theta=theta, dim=dim, scaling=yarn, magnitude=magnitude)
    if kind == "longrope":
        return Rope(theta=theta, dim=dim, magnitude=fields.positive("rope.scaling.attn_factor", 1.0))
    raise fields.unsupported("rope.scaling.type", "known are none, linear, yarn, longrope")
