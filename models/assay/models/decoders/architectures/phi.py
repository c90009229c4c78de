"""Phi-1, Phi-1.5 and Phi-2: attention and feed-forward part in parallel, partial rotation, biases."""

from __future__ import annotations

from assay.models.decoders.config import Activation, DecoderConfig, Norm, Size
from assay.models.decoders.fields import Fields
from assay.models.decoders.mapping import Architecture, Naming, Part, Role, Weight, same
from assay.models.decoders.reading import gguf_rope, gguf_sizes, hf_activation, hf_rope, hf_sizes
from assay.models.decoders.tables import EMBEDDING, HEAD, norm, qkv_bias, separate_qkv

__all__ = ["ARCHITECTURE"]

_HF = "model.layers.{layer}."
_GGUF = "blk.{layer}."


def _read_hf(fields: Fields) -> DecoderConfig:
    sizes = hf_sizes(fields)
    if fields.boolean("qk_layernorm", False):
        raise fields.unsupported("qk_layernorm", "norms of queries and keys are not read")
    return DecoderConfig(
        architecture="phi",
        **sizes,
        norm=Norm.LAYER,
        norm_epsilon=fields.positive("layer_norm_eps", 1e-5),
        rope=hf_rope(fields, sizes["head_dim"], partial=0.5),
        activation=hf_activation(fields, default="gelu_new"),
        gated=False,
        parallel=True,
        qkv_bias=True,
        output_bias=True,
        ffn_bias=True,
        head_bias=True,
        tied=fields.boolean("tie_word_embeddings", False),
    )


def _read_gguf(fields: Fields, names: frozenset[str]) -> DecoderConfig:
    sizes = gguf_sizes(fields)
    return DecoderConfig(
        architecture="phi",
        **sizes,
        norm=Norm.LAYER,
        norm_epsilon=fields.positive("attention.layer_norm_epsilon"),
        rope=gguf_rope(fields, sizes["head_dim"]),
        activation=Activation.GELU_TANH,
        gated=False,
        parallel=True,
        qkv_bias=True,
        output_bias=True,
        ffn_bias=True,
        head_bias=True,
        tied="output.weight" not in names,
    )


def _or_fused(weight: Weight, name: str, *shape: Size) -> Weight:
    """``weight``, which GGUF files may also have as one tensor."""
    separate = weight.sources[Naming.GGUF]
    return Weight(
        role=weight.role,
        sources={**weight.sources, Naming.GGUF: ((Part(name=_GGUF + name, shape=shape),), *separate)},
        condition=weight.condition,
    )


def _linear(role: Role, bias: Role, hf: str, gguf: str, rows: Size, columns: Size) -> tuple[Weight, Weight]:
    return (
        Weight(
            role=role, sources=same((rows, columns), hf=f"{_HF}{hf}.weight", gguf=f"{_GGUF}{gguf}.weight")
        ),
        Weight(role=bias, sources=same((rows,), hf=f"{_HF}{hf}.bias", gguf=f"{_GGUF}{gguf}.bias")),
    )


ARCHITECTURE = Architecture(
    name="phi",
    model_type="phi",
    gguf="phi2",
    read_hf=_read_hf,
    read_gguf=_read_gguf,
    weights=(
        EMBEDDING,
        norm(Role.INPUT_NORM, hf="input_layernorm.weight", gguf="attn_norm.weight"),
        norm(Role.INPUT_NORM_BIAS, hf="input_layernorm.bias", gguf="attn_norm.bias"),
        _or_fused(separate_qkv(), "attn_qkv.weight", Size.QKV, Size.HIDDEN),
        _or_fused(qkv_bias(), "attn_qkv.bias", Size.QKV),
        *_linear(Role.OUTPUT, Role.OUTPUT_BIAS, "self_attn.dense", "attn_output", Size.HIDDEN, Size.QUERY),
        *_linear(Role.UP, Role.UP_BIAS, "mlp.fc1", "ffn_up", Size.FFN, Size.HIDDEN),
        *_linear(Role.DOWN, Role.DOWN_BIAS, "mlp.fc2", "ffn_down", Size.HIDDEN, Size.FFN),
        norm(Role.NORM, hf="final_layernorm.weight", gguf="output_norm.weight"),
        norm(Role.NORM_BIAS, hf="final_layernorm.bias", gguf="output_norm.bias"),
        HEAD,
        Weight(role=Role.HEAD_BIAS, sources=same((Size.VOCABULARY,), hf="lm_head.bias", gguf="output.bias")),
    ),
    prefix="model.",
    ignored=("*.rotary_emb.inv_freq",),
)
