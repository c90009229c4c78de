from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.benchmarks.llm import LanguageFiles
from assay.benchmarks.llm.pytorch import PyTorchDecoder


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
def test_says_what_it_lacks():
    assert "neither as a GGUF file nor as a Hugging Face folder" in str(
        PyTorchDecoder().unavailable(files(None))
    )
