"""GPT-2 small as a model that generates: with a cache, and weights of the real shapes."""

from __future__ import annotations

from assay.models.decoders.config import Activation, DecoderConfig, Norm
from assay.models.decoders.interface import decoder_inputs, representative_inputs
from assay.models.providers import RandomDecoder
from assay.models.spec import ModelSpec, Weights

__all__ = ["CONFIG", "SPEC"]

CONFIG = DecoderConfig(
    architecture="gpt2",
    vocabulary=50257,
    context_length=1024,
    hidden=768,
    layers=12,
    heads=12,
    kv_heads=12,
    head_dim=64,
    ffn=3072,
    norm=Norm.LAYER,
    norm_epsilon=1e-5,
    activation=Activation.GELU_TANH,
    gated=False,
    qkv_bias=True,
    output_bias=True,
    ffn_bias=True,
    tied=True,
)

SPEC = ModelSpec(
    name="gpt2-lm",
    description="GPT-2 small as a model that generates tokens; it has no tokenizer.",
    provider=RandomDecoder(config=CONFIG),
    inputs=decoder_inputs(CONFIG),
    weights=Weights.RANDOM,
    licence="Apache-2.0",
    representative_inputs=representative_inputs(CONFIG),
    decoder=CONFIG.spec(bos_id=50256, eos_ids=(50256,)),
    tags=frozenset({"text", "transformer", "language-model", "decoder"}),
)
