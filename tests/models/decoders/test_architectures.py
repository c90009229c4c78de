"""Every architecture beside transformers' implementation, and its GGUF names beside the gguf package's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.models.decoders.architectures import ARCHITECTURES
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.export import export_decoder
from assay.models.decoders.mapping import Naming, Role, Transform, Weight

from .conftest import CachedSession, DictWeights

IDS = np.random.default_rng(0).integers(0, 97, 14)
STEPS = (9, 1, 1, 3)  # longer than every window below, then behind the cache

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1000.0,
    "short_factor": [1 + i / 8 for i in range(8)],
    "long_factor": [2.0] * 8,
    "factor": 2.0,
    "original_max_position_embeddings": 32,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2",
        {
            "vocab_size": 97,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "gpt2-untied": (
        "GPT2",
        {
            "vocab_size": 97,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "n_inner": 80,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
        },
    ),
    "llama": ("Llama", {**SIZES, "num_key_value_heads": 2, "head_dim": 32}),
    "llama-tied-llama3": (
        "Llama",
        {**SIZES, "num_key_value_heads": 1, "tie_word_embeddings": True, "rope_parameters": LLAMA3},
    ),
    "llama-linear": (
        "Llama",
        {**SIZES, "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    ),
    "llama-yarn": ("Llama", {**SIZES, "rope_parameters": YARN}),
    "mistral": ("Mistral", {**SIZES, "num_key_value_heads": 2, "sliding_window": 5}),
    "mistral-full": ("Mistral", {**SIZES, "num_key_value_heads": 2, "sliding_window": None}),
    "phi": ("Phi", {**SIZES, "hidden_size": 128, "num_key_value_heads": 2, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", {**SIZES, "num_key_value_heads": 2, "sliding_window": 6}),
    "phi3-longrope": ("Phi3", {**SIZES, "num_key_value_heads": 2, "rope_parameters": LONGROPE}),
    "gemma": ("Gemma", {**SIZES, "num_key_value_heads": 1, "head_dim": 32}),
    "gemma2": (
        "Gemma2",
        {
            **SIZES,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "sliding_window": 4,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "qwen2": ("Qwen2", {**SIZES, "num_key_value_heads": 2}),
    "qwen2-windows": (
        "Qwen2",
        {
            **SIZES,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
        },
    ),
}


def make_model(case: str) -> Any:
    """The case's model with weights large enough that every part of it shows in the logits."""
    import torch
    import transformers

    kind, values = CASES[case]
    config = getattr(transformers, f"{kind}Config")(**values)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale, centre = (0.15, 0.0) if parameter.dim() > 1 else (0.3, 0.0)
            if (
                name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
                and "emma" not in kind
            ):
                centre = 1.0
            parameter.copy_(torch.randn_like(parameter) * scale + centre)
    return model


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    import torch

    from assay.models.decoders.torch_source import TorchWeights, config_from_torch

    model = make_model(case)
    with torch.no_grad():
        expected = model(torch.tensor(IDS)[None]).logits[0].numpy()
    config = config_from_torch(model)
    hf = tmp_path / "hf.onnx"
    export_decoder(config, TorchWeights(model), hf, naming=Naming.HF)
    logits = CachedSession(hf, config).in_steps(IDS, STEPS)
    np.testing.assert_allclose(logits, expected, atol=5e-5)
    if config.architecture not in ("mistral",):
        gguf = tmp_path / "gguf.onnx"
        export_decoder(config, DictWeights(converted(model, config)), gguf, naming=Naming.GGUF)
        assert gguf.read_bytes() == hf.read_bytes()


def converted(model: Any, config: DecoderConfig) -> dict[str, Any]:
    """The model's weights as llama.cpp's ``convert_hf_to_gguf.py`` stores them, named by the gguf package."""
    names = gguf_names(ARCHITECTURES[config.architecture].gguf, config.layers)
    result = {}
    for name, tensor in model.state_dict().items():
        if config.tied and name == "lm_head.weight":
            continue
        base, _, kind = name.rpartition(".")
        array = tensor.numpy()
        theirs = names.get_name(base)
        if config.architecture == "gpt2" and base.endswith(("c_attn", "c_proj", "c_fc")) and kind == "weight":
            array = np.ascontiguousarray(array.T)
        if config.architecture == "llama" and theirs.endswith(("attn_q", "attn_k")):
            heads = len(array) // config.head_dim
            pairs = array.reshape(heads, 2, config.head_dim // 2, -1).swapaxes(1, 2)
            array = pairs.reshape(array.shape)
        if config.architecture.startswith("gemma") and theirs.endswith("norm"):
            array = array + np.float32(1)
        result[f"{theirs}.{kind}"] = array
    return result


def gguf_names(architecture: str | None, layers: int) -> Any:
    import gguf

    names = {name: value for value, name in gguf.MODEL_ARCH_NAMES.items()}
    assert architecture is not None
    return gguf.get_tensor_name_map(names[architecture], layers)


def lines() -> list[tuple[str, Weight]]:
    return [
        (name, weight)
        for name, architecture in ARCHITECTURES.items()
        if architecture.gguf is not None
        for weight in architecture.weights
        # Stored in GGUF files alone; and Gemma's head is always its table.
        if weight.role is not Role.ROPE_FACTORS
        and not (weight.role is Role.HEAD and name.startswith("gemma"))
    ]


@pytest.mark.parametrize(("name", "weight"), lines(), ids=lambda value: getattr(value, "role", value))
def test_names_in_gguf_files_are_those_of_the_gguf_package(name: str, weight: Weight) -> None:
    names = gguf_names(ARCHITECTURES[name].gguf, 3)
    expected = []
    for part in weight.sources[Naming.HF][0]:
        base, _, kind = part.name.format(layer=2).rpartition(".")
        expected.append(f"{names.get_name(base)}.{kind}")
    alternatives = [[part.name.format(layer=2) for part in parts] for parts in weight.sources[Naming.GGUF]]
    assert expected in alternatives


def test_both_namings_store_the_same_elements() -> None:
    for name, weight in lines():
        for naming in Naming:
            for parts in weight.sources[naming]:
                for part in parts:
                    assert (part.transform is Transform.TRANSPOSE) == (
                        name == "gpt2"
                        and naming is Naming.HF
                        and len(part.shape) == 2
                        and weight.role not in (Role.EMBEDDING, Role.POSITION, Role.HEAD)
                    ), (name, part.name)


@pytest.mark.parametrize("fused", [False, True])
def test_phi_files_may_have_their_projections_fused(fused: bool, tmp_path: Path) -> None:
    from assay.models.decoders.check import check_weights
    from assay.models.decoders.read_config import config_from_hf

    config = config_from_hf({**SIZES, "model_type": "phi", "layer_norm_eps": 1e-5, "hidden_size": 128})
    architecture = ARCHITECTURES["phi"]
    weights = {}
    for weight in architecture.weights:
        parts = weight.sources[Naming.GGUF][0 if fused else -1]
        for layer in range(config.layers if weight.role.per_layer else 1):
            for part in parts:
                shape = tuple(config.size(size) for size in part.shape)
                weights[part.name.format(layer=layer)] = np.zeros(shape, np.float32)
    resolved = check_weights(config, DictWeights(weights), Naming.GGUF)
    assert len(resolved.parts(Role.QKV, 0)) == (1 if fused else 3)
