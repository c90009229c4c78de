"""GPT-2: learned positions, layer norms, biases, GELU; Hugging Face stores its matrices [in, out]."""

from __future__ import annotations

from assay.models.decoders.config import Activation, DecoderConfig, Norm, Size
from assay.models.decoders.fields import MOST_LAYERS, Fields
from assay.models.decoders.mapping import Architecture, Naming, Part, Role, Transform, Weight, same
from assay.models.decoders.reading import gguf_sizes, hf_activation
from assay.models.decoders.tables import HEAD

__all__ = ["ARCHITECTURE"]

_HF = "transformer.h.{layer}."
_GGUF = "blk.{layer}."


def _read_hf(fields: Fields) -> DecoderConfig:
    if not fields.boolean("scale_attn_weights", True):
        raise fields.unsupported("scale_attn_weights", "scores are scaled by 1/sqrt(head_dim)")
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if fields.boolean(key, False):
            raise fields.unsupported(key, "this variation is not read")
    hidden, heads = fields.count("n_embd"), fields.count("n_head")
    return DecoderConfig(
        architecture="gpt2",
        vocabulary=fields.count("vocab_size"),
        context_length=fields.count("n_positions", 1024),
        hidden=hidden,
        layers=fields.count("n_layer", most=MOST_LAYERS),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=fields.count("n_inner", 4 * hidden),
        norm=Norm.LAYER,
        norm_epsilon=fields.positive("layer_norm_epsilon", 1e-5),
        activation=hf_activation(fields, "activation_function", "gelu_new"),
        gated=False,
        qkv_bias=True,
        output_bias=True,
        ffn_bias=True,
        tied=fields.boolean("tie_word_embeddings", True),
    )


def _read_gguf(fields: Fields, names: frozenset[str]) -> DecoderConfig:
    return DecoderConfig(
        architecture="gpt2",
        **gguf_sizes(fields),
        norm=Norm.LAYER,
        norm_epsilon=fields.positive("attention.layer_norm_epsilon"),
        activation=Activation.GELU_TANH,
        gated=False,
        qkv_bias=True,
        output_bias=True,
        ffn_bias=True,
        tied="output.weight" not in names,
    )


def _norm(weight: Role, bias: Role, hf: str, gguf: str) -> tuple[Weight, Weight]:
    return (
        Weight(role=weight, sources=same((Size.HIDDEN,), hf=f"{hf}.weight", gguf=f"{gguf}.weight")),
        Weight(role=bias, sources=same((Size.HIDDEN,), hf=f"{hf}.bias", gguf=f"{gguf}.bias")),
    )


def _linear(weight: Role, bias: Role, hf: str, gguf: str, out: Size, into: Size) -> tuple[Weight, Weight]:
    stored = Part(name=f"{_HF}{hf}.weight", shape=(into, out), transform=Transform.TRANSPOSE)
    converted = Part(name=f"{_GGUF}{gguf}.weight", shape=(out, into))
    return (
        Weight(role=weight, sources={Naming.HF: ((stored,),), Naming.GGUF: ((converted,),)}),
        Weight(role=bias, sources=same((out,), hf=f"{_HF}{hf}.bias", gguf=f"{_GGUF}{gguf}.bias")),
    )


ARCHITECTURE = Architecture(
    name="gpt2",
    model_type="gpt2",
    gguf="gpt2",
    read_hf=_read_hf,
    read_gguf=_read_gguf,
    weights=(
        Weight(
            role=Role.EMBEDDING,
            sources=same(
                (Size.VOCABULARY, Size.HIDDEN), hf="transformer.wte.weight", gguf="token_embd.weight"
            ),
        ),
        Weight(
            role=Role.POSITION,
            sources=same(
                (Size.CONTEXT, Size.HIDDEN), hf="transformer.wpe.weight", gguf="position_embd.weight"
            ),
        ),
        *_norm(Role.INPUT_NORM, Role.INPUT_NORM_BIAS, _HF + "ln_1", _GGUF + "attn_norm"),
        *_linear(Role.QKV, Role.QKV_BIAS, "attn.c_attn", "attn_qkv", Size.QKV, Size.HIDDEN),
        *_linear(Role.OUTPUT, Role.OUTPUT_BIAS, "attn.c_proj", "attn_output", Size.HIDDEN, Size.QUERY),
        *_norm(Role.FFN_NORM, Role.FFN_NORM_BIAS, _HF + "ln_2", _GGUF + "ffn_norm"),
        *_linear(Role.UP, Role.UP_BIAS, "mlp.c_fc", "ffn_up", Size.FFN, Size.HIDDEN),
        *_linear(Role.DOWN, Role.DOWN_BIAS, "mlp.c_proj", "ffn_down", Size.HIDDEN, Size.FFN),
        *_norm(Role.NORM, Role.NORM_BIAS, "transformer.ln_f", "output_norm"),
        HEAD,
    ),
    prefix="transformer.",
    # Causal masks, which older releases stored.
    ignored=("*.attn.bias", "*.attn.masked_bias"),
)
