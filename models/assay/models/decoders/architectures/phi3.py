"""Phi-3 and Phi-4-mini: Llama with fused projections, a sliding window, and LongRoPE in the long variants.

LongRoPE has other factors for sequences longer than the original context; the context ends there here.
"""

from __future__ import annotations

from assay.models.decoders.config import DecoderConfig, Size
from assay.models.decoders.fields import Fields
from assay.models.decoders.mapping import Architecture, Naming, Part, Role, Weight, same
from assay.models.decoders.reading import gguf_rope, gguf_sizes, hf_activation, hf_rope, hf_sizes
from assay.models.decoders.tables import DOWN, EMBEDDING, FUSED_QKV, HEAD, OUTPUT, norm

__all__ = ["ARCHITECTURE"]


def _read_hf(fields: Fields) -> DecoderConfig:
    sizes = hf_sizes(fields)
    return DecoderConfig(
        architecture="phi3",
        **sizes,
        norm_epsilon=fields.positive("rms_norm_eps", 1e-5),
        rope=hf_rope(fields, sizes["head_dim"]),
        window=fields.integer_or_none("sliding_window"),
        activation=hf_activation(fields, default="silu"),
        tied=fields.boolean("tie_word_embeddings", False),
    )


def _read_gguf(fields: Fields, names: frozenset[str]) -> DecoderConfig:
    sizes = gguf_sizes(fields)
    if "rope_factors_short.weight" in names:
        original = fields.count("rope.scaling.original_context_length", sizes["context_length"])
        sizes["context_length"] = min(sizes["context_length"], original)
    return DecoderConfig(
        architecture="phi3",
        **sizes,
        norm_epsilon=fields.positive("attention.layer_norm_rms_epsilon"),
        rope=gguf_rope(fields, sizes["head_dim"]),
        window=fields.integer_or_none("attention.sliding_window"),
        tied="output.weight" not in names,
    )


ARCHITECTURE = Architecture(
    name="phi3",
    model_type="phi3",
    gguf="phi3",
    read_hf=_read_hf,
    read_gguf=_read_gguf,
    weights=(
        EMBEDDING,
        Weight(
            role=Role.ROPE_FACTORS,
            sources={Naming.GGUF: ((Part(name="rope_factors_short.weight", shape=(Size.ROTARY,)),),)},
            optional=True,
        ),
        norm(Role.INPUT_NORM, hf="input_layernorm.weight", gguf="attn_norm.weight"),
        FUSED_QKV,
        OUTPUT,
        norm(Role.FFN_NORM, hf="post_attention_layernorm.weight", gguf="ffn_norm.weight"),
        Weight(
            role=Role.UP,
            sources=same(
                (Size.GATE_UP, Size.HIDDEN),
                hf="model.layers.{layer}.mlp.gate_up_proj.weight",
                gguf="blk.{layer}.ffn_up.weight",
            ),
        ),
        DOWN,
        norm(Role.NORM, hf="norm.weight", gguf="output_norm.weight"),
        HEAD,
    ),
    prefix="model.",
    ignored=("*.rotary_emb.inv_freq", "rope_factors_long.weight"),
)
