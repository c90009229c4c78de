"""Configurations of sources, and what is said of those that do not go."""

from __future__ import annotations

from typing import Any

import pytest

from assay.errors import ModelError
from assay.models.decoders.config import Activation, Norm
from assay.models.decoders.read_config import config_from_gguf, config_from_hf
from assay.models.decoders.rope import Llama3Scaling, Rope, RopeFactors, YarnScaling

from .conftest import GPT2, LLAMA

GGUF = {
    "general.architecture": "llama",
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 100000.0,
    "llama.rope.dimension_count": 64,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}


def test_a_llama_is_read() -> None:
    config = config_from_hf(LLAMA)
    assert (config.vocabulary, config.context_length, config.hidden, config.layers) == (61, 32, 64, 2)
    assert (config.heads, config.kv_heads, config.head_dim, config.ffn) == (4, 2, 16, 96)
    assert (config.norm, config.activation, config.gated, config.tied) == (
        Norm.RMS,
        Activation.SILU,
        True,
        False,
    )
    assert config.rope == Rope(theta=500.0, dim=16)
    assert config.window_of(0) is None


def test_a_gpt2_is_read() -> None:
    config = config_from_hf(GPT2)
    assert (config.heads, config.kv_heads, config.head_dim, config.ffn) == (4, 4, 16, 256)
    assert (config.norm, config.activation, config.gated, config.tied) == (
        Norm.LAYER,
        Activation.GELU_TANH,
        False,
        True,
    )
    assert config.rope is None


def test_a_gguf_header_is_read() -> None:
    config = config_from_gguf(GGUF, ["token_embd.weight"])
    assert (config.vocabulary, config.layers, config.head_dim, config.tied) == (3, 30, 64, True)
    assert config.rope == Rope(theta=100000.0, dim=64)
    assert not config_from_gguf({**GGUF, "llama.vocab_size": 7}, ["output.weight"]).tied
    assert config_from_gguf({**GGUF, "llama.vocab_size": 7}, []).vocabulary == 7


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_scalings_of_rotary_embeddings_are_read(key: str) -> None:
    def rope(**values: Any) -> Rope | None:
        return config_from_hf({**LLAMA, key: values}).rope

    assert rope(rope_type="default", rope_theta=7.0) == Rope(theta=7.0, dim=16)
    assert rope(type="linear", factor=4.0) == Rope(theta=500.0, dim=16, linear_factor=4.0)
    assert rope(
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
    ) == Rope(
        theta=500.0,
        dim=16,
        scaling=Llama3Scaling(
            factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context=16
        ),
    )
    yarn = rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
    assert yarn is not None
    assert yarn.scaling == YarnScaling(factor=4.0, original_context=16)
    assert yarn.magnitude == pytest.approx(1.1386294)


def test_a_context_ends_where_longrope_changes_its_factors() -> None:
    config = config_from_hf(
        {
            **LLAMA,
            "model_type": "phi3",
            "original_max_position_embeddings": 16,
            "rope_scaling": {"type": "longrope", "short_factor": [2.0] * 8, "long_factor": [9.0] * 8},
        }
    )
    assert config.context_length == 16
    assert config.rope is not None
    assert config.rope.scaling == RopeFactors(factors=(2.0,) * 8)
    assert config.rope.magnitude == pytest.approx((1 + 0.25) ** 0.5)


def test_windows_are_of_all_layers_or_of_some() -> None:
    mistral = config_from_hf({**LLAMA, "model_type": "mistral", "sliding_window": 5})
    assert [mistral.window_of(layer) for layer in range(2)] == [5, 5]
    assert mistral.spec().window == 5
    qwen2 = config_from_hf(
        {
            **LLAMA,
            "model_type": "qwen2",
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
        }
    )
    assert [qwen2.window_of(layer) for layer in range(2)] == [None, 5]
    assert qwen2.spec().window is None
    assert config_from_hf({**LLAMA, "model_type": "qwen2", "sliding_window": 5}).window is None


def test_the_scale_of_gemma2_27b_is_known_by_its_layers() -> None:
    values = {key.replace("llama.", "gemma2."): value for key, value in GGUF.items()}
    values |= {"general.architecture": "gemma2", "gemma2.embedding_length": 4608}
    values |= {"gemma2.attention.head_count": 32, "gemma2.attention.head_count_kv": 16}
    values |= {"gemma2.attention.key_length": 128}
    assert config_from_gguf(values, []).attention_scale is None
    assert config_from_gguf({**values, "gemma2.block_count": 46}, []).attention_scale == 144**-0.5


@pytest.mark.parametrize("name", ["mamba", "qwen3", ""])
def test_an_unknown_architecture_is_told_which_are_known(name: str) -> None:
    known = "gemma, gemma2, gpt2, llama, mistral, phi, phi3, qwen2"
    with pytest.raises(ModelError) as caught:
        config_from_hf({**LLAMA, "model_type": name})
    assert caught.value.message == f"The architecture {name!r} is not known."
    assert caught.value.hint == f"Known architectures are {known}."
    with pytest.raises(ModelError) as caught:
        config_from_gguf({**GGUF, "general.architecture": name}, [])
    assert caught.value.hint == "Known architectures are gemma, gemma2, gpt2, llama, phi2, phi3, qwen2."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "lacks the key 'hidden_size'"),
        ({"hidden_size": "64"}, "hidden_size = '64', which is not a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers = True, which is not a whole number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000, which is not from 1 to 4096"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0, which is not from 1 to 4096"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0, which is not from 1"),
        ({"vocab_size": -1}, "vocab_size = -1, which is not from 1"),
        ({"num_key_value_heads": 3}, "4 heads and 3 key-value heads"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan, which is not a finite number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings = 1, which is not true or false"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish': known activations are"),
        ({"attention_bias": True}, "attention_bias = True: biases of attention are read for"),
        ({"rope_theta": 0.0}, "rope_theta = 0.0, which is not a positive number"),
        ({"rope_theta": 1.0}, "theta above 1"),
        ({"max_position_embeddings": 1 << 24}, "context_length = 16777216, which cannot be"),
        ({"rope_scaling": [1]}, "rope_scaling = [1], which is not an object"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type = 'dynamic': known are"),
        ({"rope_scaling": {"rope_type": "linear"}}, "(rope_scaling) lacks the key 'factor'"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "8 factors are needed, not 1"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": ["x"] * 8}}, "short_factor = 'x'"),
        ({"head_dim": 15}, "rotates 15 of 15 elements"),
        ({"partial_rotary_factor": 1.5}, "rotates 24 of 16 elements"),
        ({"quantization_config": {"bits": 4}}, "has a quantization_config"),
        ({"model_type": 3}, "model_type = 3, which is not a text"),
        ({"model_type": "mistral", "sliding_window": 0}, "a window of 0 tokens"),
        ({"model_type": "phi", "qk_layernorm": True, "layer_norm_eps": 1e-5}, "qk_layernorm = True"),
    ],
)
def test_what_does_not_go_is_said_by_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        config_from_hf({**LLAMA, **changes})
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama.block_count": None}, "The GGUF header lacks the key 'llama.block_count'."),
        ({"llama.attention.head_count": [9, 9]}, "llama.attention.head_count = [9, 9], which is not a whole"),
        ({"llama.rope.scaling.type": "su"}, "llama.rope.scaling.type = 'su': known are"),
        ({"tokenizer.ggml.tokens": None}, "lacks the key 'llama.vocab_size'"),
        ({"llama.expert_count": 8}, "llama.expert_count = 8: mixtures of experts"),
    ],
)
def test_what_does_not_go_in_a_gguf_header_is_said_by_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        config_from_gguf({**GGUF, **changes}, [])
    assert message in caught.value.message
