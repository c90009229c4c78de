"""Configurations with one wrong value: an error that says so, or a model whose tables can be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from assay.errors import ModelError
from assay.models.decoders.architectures import ARCHITECTURES
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.read_config import config_from_gguf, config_from_hf
from assay.models.decoders.rope import rotary_tables

WRONG: tuple[Any, ...] = (
    *(None, -1, 0, 1, 3, 1 << 31, 1 << 70, -(1 << 70), True, False),
    *(0.0, -0.5, 0.5, 1e-320, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "yarn",
        "longrope",
        "llama3",
        "dynamic",
        [],
        [0],
        [float("nan")] * 8,
        ["full_attention"],
        {},
        {"a": 1},
    ),
)
HF: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 32,
    "original_max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "hidden_act": "silu",
    "hidden_activation": "gelu",
    "sliding_window": 4,
    "use_sliding_window": True,
    "max_window_layers": 1,
    "layer_types": None,
    "tie_word_embeddings": False,
    "query_pre_attn_scalar": 16,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 5.0,
    "partial_rotary_factor": 1.0,
    "rope_theta": 100.0,
    "rope_scaling": None,
    "vocabulary": 9,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
}
SCALINGS: tuple[dict[str, Any], ...] = (
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "yarn", "factor": 2.0, "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 1.0},
    {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0] * 8, "attention_factor": 1.0},
)
GGUF: dict[str, Any] = {
    "block_count": 2,
    "context_length": 32,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "vocab_size": 61,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 16,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.sliding_window": 4,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 5.0,
    "rope.freq_base": 100.0,
    "rope.dimension_count": 16,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 2.0,
    "rope.scaling.original_context_length": 16,
    "rope.scaling.attn_factor": 1.0,
}


def one_wrong(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in values:
        for wrong in WRONG:
            yield {**values, key: wrong}


def holds(read: Callable[[], DecoderConfig], what: object) -> bool:
    """Whether a configuration was read; it must be one that everything can be made of."""
    try:
        config = read()
    except ModelError:
        return False
    assert all(isinstance(config.window_of(layer), int | None) for layer in range(config.layers))
    if config.rope is not None and config.rope.dim <= 64:
        tables = rotary_tables(config.rope, 4)
        assert np.isfinite(tables).all(), what
    for value in (
        config.norm_epsilon,
        config.attention_scale,
        config.attention_softcap,
        config.logit_softcap,
    ):
        assert value is None or (isinstance(value, float) and 0 <= value < np.inf), what
    return True


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_wrong_value_of_a_config_json(name: str) -> None:
    plain = {**HF, "model_type": name}
    if name == "phi":
        plain["head_dim"] = None
    assert holds(lambda: config_from_hf(plain), plain)
    for values in one_wrong(plain):
        holds(lambda values=values: config_from_hf(values), values)
    for scaling in SCALINGS:
        for wrong in one_wrong({**scaling, "original_max_position_embeddings": 16, "rope_theta": 100.0}):
            values = {**plain, "rope_parameters": wrong}
            holds(lambda values=values: config_from_hf(values), values)


@pytest.mark.parametrize("name", [name for name, entry in ARCHITECTURES.items() if entry.gguf is not None])
def test_one_wrong_value_of_a_gguf_header(name: str) -> None:
    gguf = ARCHITECTURES[name].gguf
    for kind in ("none", "linear", "yarn", "longrope"):
        plain = {**GGUF, "rope.scaling.type": kind}

        def values_of(values: dict[str, Any]) -> dict[str, Any]:
            return {"general.architecture": gguf, **{f"{gguf}.{key}": value for key, value in values.items()}}

        assert holds(lambda plain=plain: config_from_gguf(values_of(plain), []), plain)
        for values in one_wrong(plain):
            holds(lambda values=values: config_from_gguf(values_of(values), ["output.weight"]), values)
