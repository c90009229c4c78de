"""What the canonical decoder declares beside what its file has."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from assay.models.decoders.export import export_decoder
from assay.models.decoders.interface import decoder_inputs, decoder_outputs, representative_inputs
from assay.models.decoders.mapping import Naming
from assay.models.decoders.read_config import config_from_hf
from assay.models.export.canonical import export_canonical
from assay.models.providers import OnnxFile
from assay.models.spec import ModelSpec, Weights

from .conftest import GPT2, LLAMA, DictWeights, gpt2_weights, llama_weights


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("past", [0, 3])
def test_representative_inputs_run(session: Any, tmp_path: Any, tokens: int, past: int) -> None:
    import onnxruntime

    for values, draw in ((LLAMA, llama_weights), (GPT2, gpt2_weights)):
        config = config_from_hf(values)
        session(config, DictWeights(draw(config)))
        sizes = {"batch": 1, "tokens": tokens, "past": past, "total": tokens + past}
        inputs = representative_inputs(config)(sizes, np.random.default_rng(0))
        assert list(inputs) == [spec.name for spec in decoder_inputs(config)]
        assert [array.dtype.name for array in inputs.values()] == [
            spec.dtype.value for spec in decoder_inputs(config)
        ]
        run = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        outputs = run.run(None, inputs)
        expected = [
            tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)
            for _, shape in decoder_outputs(config)
        ]
        assert [output.shape for output in outputs] == expected


def test_the_canonical_export_keeps_the_graph(tmp_path: Any) -> None:
    config = config_from_hf({**LLAMA, "tie_word_embeddings": True})
    weights = {name: value.astype(np.float16) for name, value in llama_weights(config).items()}
    source = tmp_path / "source.onnx"
    export_decoder(config, DictWeights(weights), source, naming=Naming.HF)
    spec = ModelSpec(
        name="tiny",
        description="a tiny Llama",
        provider=OnnxFile(path=source),
        inputs=decoder_inputs(config),
        weights=Weights.RANDOM,
        licence="none",
        representative_inputs=representative_inputs(config),
        decoder=config.spec(),
    )
    canonical = export_canonical(spec, tmp_path / "canonical")
    before, after = onnx.load(source).graph, onnx.load(canonical.path).graph
    assert list(before.node) == list(after.node)
    assert sorted(tensor.name for tensor in before.initializer) == [
        tensor.name for tensor in after.initializer
    ]
    assert [(output.name, output.shape) for output in canonical.outputs] == list(decoder_outputs(config))
    assert canonical.spec.decoder == config.spec()
