"""Gemma 2: Gemma with norms behind attention and feed-forward part, soft caps, windows in even layers."""

from __future__ import annotations

import math

from assay.models.decoders.config import Activation, DecoderConfig
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
from assay.models.decoders.tables import DOWN, EMBEDDING, GATE_AND_UP, HEAD, OUTPUT, norm, separate_qkv

__all__ = ["ARCHITECTURE"]

# The 27B model alone scales by its hidden size. GGUF headers do not say so; llama.cpp counts layers too.
_LAYERS_OF_27B = 46


def _even(layers: int) -> frozenset[int]:
    return frozenset(range(0, layers, 2))


def _read_hf(fields: Fields) -> DecoderConfig:
    sizes = hf_sizes(fields)
    if fields.boolean("attention_bias", False):
        raise fields.unsupported("attention_bias", "no biases are read for gemma2")
    layers = hf_window_layers(fields)
    return DecoderConfig(
        architecture="gemma2",
        **sizes,
        norm_epsilon=fields.positive("rms_norm_eps", 1e-6),
        rope=hf_rope(fields, sizes["head_dim"]),
        window=fields.integer_or_none("sliding_window"),
        window_layers=_even(sizes["layers"]) if layers is None else layers,
        activation=hf_activation(fields, "hidden_activation", "gelu_pytorch_tanh"),
        post_norms=True,
        tied=fields.boolean("tie_word_embeddings", True),
        embedding_scale=math.sqrt(sizes["hidden"]),
        attention_scale=fields.positive("query_pre_attn_scalar", 256.0) ** -0.5,
        attention_softcap=fields.positive_or_none("attn_logit_softcapping"),
        logit_softcap=fields.positive_or_none("final_logit_softcapping"),
    )


def _read_gguf(fields: Fields, names: frozenset[str]) -> DecoderConfig:
    sizes = gguf_sizes(fields)
    of_hidden = sizes["layers"] == _LAYERS_OF_27B
    return DecoderConfig(
        architecture="gemma2",
        **sizes,
        norm_epsilon=fields.positive("attention.layer_norm_rms_epsilon"),
        rope=gguf_rope(fields, sizes["head_dim"]),
        window=fields.count("attention.sliding_window", 4096),
        window_layers=_even(sizes["layers"]),
        activation=Activation.GELU_TANH,
        post_norms=True,
        tied="output.weight" not in names,
        embedding_scale=math.sqrt(sizes["hidden"]),
        attention_scale=(sizes["hidden"] / sizes["heads"]) ** -0.5 if of_hidden else None,
        attention_softcap=fields.positive("attn_logit_softcapping", 50.0),
        logit_softcap=fields.positive("final_logit_softcapping", 30.0),
    )


ARCHITECTURE = Architecture(
    name="gemma2",
    model_type="gemma2",
    gguf="gemma2",
    read_hf=_read_hf,
    read_gguf=_read_gguf,
    weights=(
        EMBEDDING,
        norm(Role.INPUT_NORM, hf="input_layernorm.weight", gguf="attn_norm.weight", add_one=True),
        separate_qkv(),
        OUTPUT,
        norm(
            Role.POST_ATTENTION_NORM,
            hf="post_attention_layernorm.weight",
            gguf="post_attention_norm.weight",
            add_one=True,
        ),
        norm(Role.FFN_NORM, hf="pre_feedforward_layernorm.weight", gguf="ffn_norm.weight", add_one=True),
        GATE_AND_UP,
        DOWN,
        norm(
            Role.POST_FFN_NORM,
            hf="post_feedforward_layernorm.weight",
            gguf="post_ffw_norm.weight",
            add_one=True,
        ),
        norm(Role.NORM, hf="norm.weight", gguf="output_norm.weight", add_one=True),
        HEAD,
    ),
    prefix="model.",
    ignored=("*.rotary_emb.inv_freq",),
)
