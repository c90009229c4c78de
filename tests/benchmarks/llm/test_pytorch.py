from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from assay.benchmarks.llm import LanguageFiles
from assay.benchmarks.llm.onnx_runtime import OnnxRuntimeDecoder
from assay.benchmarks.llm.pytorch import PyTorchDecoder
from assay.models.decoders.export import export_decoder
from assay.models.decoders.interface import decoder_inputs
from assay.models.decoders.mapping import Naming
from assay.models.providers import RandomDecoder
from assay.models.providers.random_decoder import RandomWeightsOf
from assay.models.zoo import gpt2_lm


def files(folder: Path | None) -> LanguageFiles:
    return LanguageFiles(name="m", artifact=Path("a"), canonical=None, gguf=None, folder=folder)


@pytest.mark.torch
def test_steps_give_what_one_prompt_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    engine = PyTorchDecoder()
    assert engine.unavailable(files(tmp_path)) is None
    assert engine.size_bytes(files(tmp_path)) == (tmp_path / "model.safetensors").stat().st_size
    session = engine.load(files(tmp_path), 1, 64, 2)
    tokens = np.random.default_rng(0).integers(0, 61, (2, 12)).tolist()
    expected = session.advance(tokens)
    assert expected.shape == (2, 61)
    session.reset()
    session.advance([own[:11] for own in tokens])
    found = session.advance([own[11:] for own in tokens])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.torch
def test_draws_the_weights_that_the_zoo_draws(tmp_path, monkeypatch):
    sizes = {"vocabulary": 61, "context_length": 32, "hidden": 32, "layers": 2, "ffn": 48}
    config = dataclasses.replace(gpt2_lm.CONFIG, **sizes, heads=2, kv_heads=2, head_dim=16)
    spec = dataclasses.replace(
        gpt2_lm.SPEC, name="m", provider=RandomDecoder(config=config), inputs=decoder_inputs(config)
    )
    monkeypatch.setattr("assay.models.registry.models", lambda: {"m": spec})
    path = tmp_path / "decoder.onnx"
    export_decoder(config, RandomWeightsOf(config), path, naming=Naming.HF)
    drawn = LanguageFiles(name="m", artifact=Path("a"), canonical=path, gguf=None, folder=None)
    assert PyTorchDecoder().unavailable(drawn) is None
    assert PyTorchDecoder().size_bytes(drawn) is None
    tokens = np.random.default_rng(0).integers(0, 61, (2, 9)).tolist()
    found = PyTorchDecoder().load(drawn, 1, 16, 2).advance(tokens)
    expected = OnnxRuntimeDecoder().load(drawn, 1, 16, 2).advance(tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.torch
def test_says_what_it_lacks():
    assert "neither as a GGUF file nor as a Hugging Face folder" in str(
        PyTorchDecoder().unavailable(files(None))
    )
