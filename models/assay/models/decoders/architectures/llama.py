"""Llama 1 to 3 and what has its form (SmolLM2, TinyLlama, Mistral in GGUF files)."""

from __future__ import annotations

from assay.models.decoders.config import DecoderConfig, Size
from assay.models.decoders.fields import Fields
from assay.models.decoders.mapping import Architecture, Naming, Part, Role, Weight
from assay.models.decoders.reading import gguf_rope, gguf_sizes, hf_activation, hf_rope, hf_sizes
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
    if fields.boolean("attention_bias", False):
        raise fields.unsupported("attention_bias", "biases of attention are read for qwen2, phi and gpt2")
    if fields.boolean("mlp_bias", False):
        raise fields.unsupported("mlp_bias", "biases of the feed-forward part are read for phi and gpt2")
    return DecoderConfig(
        architecture="llama",
        **sizes,
        norm_epsilon=fields.positive("rms_norm_eps", 1e-6),
        rope=hf_rope(fields, sizes["head_dim"]),
        activation=hf_activation(fields, default="silu"),
        tied=fields.boolean("tie_word_embeddings", False),
    )


def _read_gguf(fields: Fields, names: frozenset[str]) -> DecoderConfig:
    sizes = gguf_sizes(fields)
    if fields.integer("expert_count", 0):
        raise fields.unsupported("expert_count", "mixtures of experts are not read")
    return DecoderConfig(
        architecture="llama",
        **sizes,
        norm_epsilon=fields.positive("attention.layer_norm_rms_epsilon"),
        rope=gguf_rope(fields, sizes["head_dim"]),
        window=fields.integer_or_none("attention.sliding_window"),
        qkv_bias="blk.0.attn_q.bias" in names,
        tied="output.weight" not in names,
    )


ARCHITECTURE = Architecture(
    name="llama",
    model_type="llama",
    gguf="llama",
    read_hf=_read_hf,
    read_gguf=_read_gguf,
    weights=(
        EMBEDDING,
        Weight(
            role=Role.ROPE_FACTORS,
            sources={Naming.GGUF: ((Part(name="rope_freqs.weight", shape=(Size.ROTARY,)),),)},
            optional=True,
        ),
        norm(Role.INPUT_NORM, hf="input_layernorm.weight", gguf="attn_norm.weight"),
        separate_qkv(permuted=True),
        qkv_bias(permuted=True),
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
