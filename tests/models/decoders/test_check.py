"""What the checker says of tensors that do not fit, before any is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.errors import ModelError
from assay.models.decoders.check import check_weights
from assay.models.decoders.mapping import Naming, Role
from assay.models.decoders.read_config import config_from_hf

from .conftest import GPT2, LLAMA, DictWeights, gpt2_weights, llama_weights


def refusal(weights: dict[str, Any], naming: Naming = Naming.HF, **changes: Any) -> str:
    source = DictWeights(weights)
    with pytest.raises(ModelError) as caught:
        check_weights(config_from_hf({**LLAMA, **changes}), source, naming)
    assert source.read_names == []
    return caught.value.message


def test_everything_wrong_is_said_at_once() -> None:
    weights = llama_weights(config_from_hf(LLAMA))
    del weights["model.norm.weight"], weights["model.layers.1.mlp.up_proj.weight"]
    weights["model.layers.0.self_attn.k_proj.weight"] = np.zeros((64, 64), np.float32)
    weights["lora.a"] = np.zeros(3, np.float32)
    message = refusal(weights)
    assert "not those of a llama model of 2 layers" in message
    assert "missing (2): model.layers.1.mlp.up_proj.weight, model.norm.weight;" in message
    assert (
        "of the wrong shape (1): model.layers.0.self_attn.k_proj.weight has [64, 64], "
        "not [kv_heads*head_dim = 32, hidden = 64];" in message
    )
    assert message.endswith("unexpected (1): lora.a.")


def test_weights_of_another_naming_are_all_missing_and_all_unexpected() -> None:
    message = refusal(llama_weights(config_from_hf(LLAMA)), Naming.GGUF)
    assert "missing (21): " in message
    assert "unexpected (21): " in message
    assert message.count(", ...") == 2


def test_a_layer_too_many_is_unexpected() -> None:
    message = refusal(llama_weights(config_from_hf({**LLAMA, "num_hidden_layers": 3})))
    assert "missing" not in message
    assert "unexpected (9): model.layers.2.input_layernorm.weight" in message


def test_a_vector_in_place_of_a_matrix_is_of_the_wrong_shape() -> None:
    weights = llama_weights(config_from_hf(LLAMA))
    weights["lm_head.weight"] = np.zeros(61 * 64, np.float32)
    assert "lm_head.weight has [3904], not [vocabulary = 61, hidden = 64]" in refusal(weights)


def test_a_tied_model_may_store_its_head_twice() -> None:
    config = config_from_hf({**LLAMA, "tie_word_embeddings": True})
    weights = llama_weights(config_from_hf(LLAMA))
    resolved = check_weights(config, DictWeights(weights), Naming.HF)
    assert resolved.parts(Role.HEAD) == ()


def test_an_untied_model_needs_its_head() -> None:
    weights = llama_weights(config_from_hf(LLAMA))
    del weights["lm_head.weight"]
    assert "missing (1): lm_head.weight." in refusal(weights)


def test_names_with_and_without_the_prefix_are_found() -> None:
    config = config_from_hf(GPT2)
    bare = gpt2_weights(config)
    # Causal masks that older releases stored.
    bare["h.0.attn.bias"] = np.zeros((1, 1, 32, 32), np.float32)
    for prefix in ("", "transformer."):
        weights = {f"{prefix}{name}": value for name, value in bare.items()}
        resolved = check_weights(config, DictWeights(weights), Naming.HF)
        assert [part.name for part in resolved.parts(Role.QKV, 1)] == [f"{prefix}h.1.attn.c_attn.weight"]


def test_parts_come_in_the_order_of_their_rows() -> None:
    config = config_from_hf(LLAMA)
    resolved = check_weights(config, DictWeights(llama_weights(config)), Naming.HF)
    at = "model.layers.0."
    assert [part.name for part in resolved.parts(Role.QKV, 0)] == [
        f"{at}self_attn.{letter}_proj.weight" for letter in "qkv"
    ]
    assert [part.name for part in resolved.parts(Role.UP, 0)] == [
        f"{at}mlp.gate_proj.weight",
        f"{at}mlp.up_proj.weight",
    ]
