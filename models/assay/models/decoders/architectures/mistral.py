"""Mistral: Llama with a sliding window. In GGUF files it is ``llama``."""

from __future__ import annotations

from assay.models.decoders.architectures import llama
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.fields import Fields
from assay.models.decoders.mapping import Architecture
from assay.models.decoders.reading import hf_activation, hf_rope, hf_sizes, hf_window_layers

__all__ = ["ARCHITECTURE"]


def _read_hf(fields: Fields) -> DecoderConfig:
    sizes = hf_sizes(fields)
    return DecoderConfig(
        architecture="mistral",
        **sizes,
        norm_epsilon=fields.positive("rms_norm_eps", 1e-6),
        rope=hf_rope(fields, sizes["head_dim"]),
        window=fields.integer_or_none("sliding_window"),
        window_layers=hf_window_layers(fields),
        activation=hf_activation(fields, default="silu"),
        tied=fields.boolean("tie_word_embeddings", False),
    )


ARCHITECTURE = Architecture(
    name="mistral",
    model_type="mistral",
    gguf=None,
    read_hf=_read_hf,
    read_gguf=llama.ARCHITECTURE.read_gguf,
    weights=llama.ARCHITECTURE.weights,
    prefix="model.",
    ignored=llama.ARCHITECTURE.ignored,
)
