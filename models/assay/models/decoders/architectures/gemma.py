"""Gemma: norms that multiply by 1 + weight, embeddings scaled by sqrt(hidden), a gated GELU."""

from __future__ import annotations

import math

from assay.models.decoders.config import Activation, DecoderConfig
from assay.models.decoders.fields import Fields
from assay.models.decoders.mapping import Architecture, Role
from assay.models.decoders.reading import gguf_rope, gguf_sizes, hf_activation, hf_rope, hf_sizes
from assay.models.decoders.tables import DOWN, EMBEDDING, GATE_AND_UP, HEAD, OUTPUT, norm, separate_qkv

__all__ = ["ARCHITECTURE"]


def _read_hf(fields: Fields) -> DecoderConfig:
    sizes = hf_sizes(fields)
    if fields.boolean("attention_bias", False):
        raise fields.unsupported("attention_bias", "no biases are read for gemma")
    activation = hf_activation(fields, "hidden_activation" if "hidden_activation" in fields else "hidden_act")
    return DecoderConfig(
        architecture="gemma",
        **sizes,
        norm_epsilon=fields.positive("rms_norm_eps", 1e-6),
        rope=hf_rope(fields, sizes["head_dim"]),
        # The first releases said "gelu" and were trained with its approximation by tanh.
        activation=Activation.GELU_TANH if activation is Activation.GELU else activation,
        tied=fields.boolean("tie_word_embeddings", True),
        embedding_scale=math.sqrt(sizes["hidden"]),
    )


def _read_gguf(fields: Fields, names: frozenset[str]) -> DecoderConfig:
    sizes = gguf_sizes(fields)
    return DecoderConfig(
        architecture="gemma",
        **sizes,
        norm_epsilon=fields.positive("attention.layer_norm_rms_epsilon"),
        rope=gguf_rope(fields, sizes["head_dim"]),
        activation=Activation.GELU_TANH,
        tied="output.weight" not in names,
        embedding_scale=math.sqrt(sizes["hidden"]),
    )


ARCHITECTURE = Architecture(
    name="gemma",
    model_type="gemma",
    gguf="gemma",
    read_hf=_read_hf,
    read_gguf=_read_gguf,
    weights=(
        EMBEDDING,
        norm(Role.INPUT_NORM, hf="input_layernorm.weight", gguf="attn_norm.weight", add_one=True),
        separate_qkv(),
        OUTPUT,
        norm(Role.FFN_NORM, hf="post_attention_layernorm.weight", gguf="ffn_norm.weight", add_one=True),
        GATE_AND_UP,
        DOWN,
        norm(Role.NORM, hf="norm.weight", gguf="output_norm.weight", add_one=True),
        HEAD,
    ),
    prefix="model.",
    ignored=("*.rotary_emb.inv_freq",),
)
