"""Architectures with what no other has, from their tables of weights to a verified artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.decoders.conftest import DictWeights

from assay.compile.build import build_artifact
from assay.models.decoders.architectures import ARCHITECTURES
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.export import export_decoder
from assay.models.decoders.interface import decoder_inputs, representative_inputs
from assay.models.decoders.mapping import Naming
from assay.models.decoders.read_config import config_from_hf
from assay.models.providers import OnnxFile
from assay.models.spec import ModelSpec, Weights

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CASES: dict[str, dict[str, Any]] = {
    # Learned positions.
    "gpt2": {"vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    # Attention beside the feed-forward part, half of each head rotated, biases everywhere.
    "phi": {**SIZES, "hidden_size": 128, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5},
    # Soft caps, a window in every other layer, norms behind attention and feed-forward part.
    "gemma2": {
        **SIZES,
        "head_dim": 16,
        "sliding_window": 4,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    # Biases of queries, keys and values; a table that is the head, too.
    "qwen2": {**SIZES, "tie_word_embeddings": True},
}


def draw(config: DecoderConfig) -> DictWeights:
    """Random weights for every line of the architecture's table, under Hugging Face's names."""
    generator = np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    for weight in ARCHITECTURES[config.architecture].weights:
        if Naming.HF not in weight.sources or not weight.condition(config):
            continue
        for part in weight.sources[Naming.HF][0]:
            shape = tuple(config.size(size) for size in part.shape)
            for layer in range(config.layers if weight.role.per_layer else 1):
                values = (0.15 if len(shape) > 1 else 0.3) * generator.standard_normal(shape)
                tensors[part.name.format(layer=layer)] = values.astype(np.float32)
    return DictWeights(tensors)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_architecture_builds_and_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    config = config_from_hf({**CASES[name], "model_type": name})
    path = tmp_path / "decoder.onnx"
    export_decoder(config, draw(config), path, naming=Naming.HF)
    spec = ModelSpec(
        name=f"tiny-{name}",
        description=f"A tiny {name}.",
        provider=OnnxFile(path=path),
        inputs=decoder_inputs(config),
        weights=Weights.RANDOM,
        licence="none",
        representative_inputs=representative_inputs(config),
        decoder=config.spec(),
    )
    result = build_artifact(spec, cache=tmp_path / "cache")
    decoder = result.manifest.decoder
    assert decoder is not None
    assert decoder.architecture == name
    assert (decoder.layers, decoder.heads, decoder.kv_heads) == (config.layers, config.heads, config.kv_heads)
