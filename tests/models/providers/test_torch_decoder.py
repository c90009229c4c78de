"""PyTorch modules and state dicts as decoder models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.errors import ModelError
from assay.models.export.canonical import export_canonical
from assay.models.providers import TorchDecoder, spec_from_torch

pytestmark = pytest.mark.torch


@pytest.fixture
def model() -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        bos_token_id=3,
        eos_token_id=[4, 5],
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_a_model_and_its_state_dict_export_alike(model: Any, tmp_path: Path) -> None:
    spec = spec_from_torch("tiny", model)
    pair = spec_from_torch("tiny", (model.state_dict(), model.config.to_dict()))
    assert spec.inputs == pair.inputs
    assert spec.decoder == pair.decoder
    first, second = export_canonical(spec, tmp_path / "a"), export_canonical(pair, tmp_path / "b")
    assert first.digest == second.digest


def test_the_text_side_is_the_configurations(model: Any, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    decoder = TorchDecoder(factory=lambda: model, tokenizer=tokenizer, chat_template="{{ x }}").decoder()
    assert (decoder.architecture, decoder.bos_id, decoder.eos_ids) == ("qwen2", 3, (4, 5))
    assert (decoder.tokenizer, decoder.chat_template) == (tokenizer, "{{ x }}")


def test_the_exported_model_computes_what_the_module_does(model: Any, tmp_path: Path) -> None:
    import onnxruntime
    import torch

    spec = spec_from_torch("tiny", model)
    canonical = export_canonical(spec, tmp_path)
    assert spec.representative_inputs is not None
    sizes = {**spec.default_sizes(), "past": 0}
    inputs = spec.representative_inputs(sizes, np.random.default_rng(0))
    logits = onnxruntime.InferenceSession(str(canonical.path), providers=["CPUExecutionProvider"]).run(
        ["logits"], inputs
    )[0]
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs["input_ids"])).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert onnx.load(canonical.path).graph.node[-1].output[0] == "logits"


def test_another_kind_of_module_is_refused() -> None:
    import torch

    with pytest.raises(ModelError, match="A Linear has no configuration to read"):
        spec_from_torch("linear", torch.nn.Linear(2, 2))
