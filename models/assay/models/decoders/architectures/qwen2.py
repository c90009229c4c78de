"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values."""

from __future__ import annotations

from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.fields import Fields
from assay.models.decoders.mapping import Architecture, Role
from assay.models.decoders.reading import (
    gguf_rope,
    gguf_sizes,
    hf_activation,
    hf_rope,
    hf_sizes,
    hf_window_layers,
)
from assay.models.decoders.tables import (
    DOWN,
    EMBEDDING,
    GATE_AND_UP,
    HEAD,
    OUTPUT,
    norm,
    qkv_bias,
    separate_qkv,
)

__all__ = ["ARCHITECTURE"]


def _read_hf(fields: Fields) -> DecoderConfig:
    sizes = hf_sizes(fields)
    window, layers = None, None
    if fields.boolean("use_sliding_window", False):
        window = fields.integer_or_none("sliding_window")
        first = fields.integer("max_window_layers", 28)
        layers = hf_window_layers(fields)
        if layers is None:
            layers = frozenset(range(max(first, 0), sizes["layers"]))
    return DecoderConfig(
        architecture="qwen2",
        **sizes,
        norm_epsilon=fields.positive("rms_norm_eps", 1e-6),
        rope=hf_rope(fields, sizes["head_dim"]),
        window=window,
        window_layers=layers,
        activation=hf_activation(fields, default="silu"),
        qkv_bias=True,
        tied=fields.boolean("tie_word_embeddings", False),
    )


def _read_gguf(fields: Fields, names: frozenset[str]) -> DecoderConfig:
    sizes = gguf_sizes(fields)
    return DecoderConfig(
        architecture="qwen2",
        **sizes,
        norm_epsilon=fields.positive("attention.layer_norm_rms_epsilon"),
        rope=gguf_rope(fields, sizes["head_dim"]),
        qkv_bias=True,
        tied="output.weight" not in names,
    )


ARCHITECTURE = Architecture(
    name="qwen2",
    model_type="qwen2",
    gguf="qwen2",
    read_hf=_read_hf,
    read_gguf=_read_gguf,
    weights=(
        EMBEDDING,
        norm(Role.INPUT_NORM, hf="input_layernorm.weight", gguf="attn_norm.weight"),
        separate_qkv(),
        qkv_bias(),
        OUTPUT,
        norm(Role.FFN_NORM, hf="post_attention_layernorm.weight", gguf="ffn_norm.weight"),
        GATE_AND_UP,
        DOWN,
        norm(Role.NORM, hf="norm.weight", gguf="output_norm.weight"),
        HEAD,
    ),
    prefix="model.",
    ignored=("*.rotary_emb.inv_freq",),
)
