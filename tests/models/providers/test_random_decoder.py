from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from assay.models.decoders.check import check_weights
from assay.models.decoders.config import Activation, DecoderConfig, Norm
from assay.models.decoders.interface import representative_inputs
from assay.models.decoders.mapping import Naming
from assay.models.decoders.rope import Rope
from assay.models.providers import RandomDecoder
from assay.models.providers.random_decoder import RandomWeightsOf
from assay.models.zoo import gpt2_lm, smollm2_135m

GPT2 = DecoderConfig(
    architecture="gpt2",
    vocabulary=64,
    context_length=16,
    hidden=32,
    layers=2,
    heads=4,
    kv_heads=4,
    head_dim=8,
    ffn=64,
    norm=Norm.LAYER,
    norm_epsilon=1e-5,
    activation=Activation.GELU_TANH,
    gated=False,
    qkv_bias=True,
    output_bias=True,
    ffn_bias=True,
    tied=True,
)
GEMMA = DecoderConfig(
    architecture="gemma",
    vocabulary=64,
    context_length=16,
    hidden=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    ffn=48,
    norm_epsilon=1e-6,
    rope=Rope(theta=10000.0, dim=16),
    activation=Activation.GELU_TANH,
    embedding_scale=32**0.5,
    tied=True,
)


@pytest.mark.parametrize("config", [GPT2, GEMMA, gpt2_lm.CONFIG, smollm2_135m.CONFIG])
def test_the_tensors_are_those_of_the_architecture(config: DecoderConfig) -> None:
    weights = RandomWeightsOf(config)
    check_weights(config, weights, Naming.HF)
    name = weights.names()[-1]
    np.testing.assert_array_equal(weights.read(name), weights.read(name))
    assert (weights.read(name) != RandomWeightsOf(config, seed=1).read(name)).any()
    assert weights.read(name).shape == weights.shape(name)


def test_gpt2_has_124_million_weights() -> None:
    weights = RandomWeightsOf(gpt2_lm.CONFIG)
    assert sum(int(np.prod(weights.shape(name))) for name in weights.names()) == 124_439_808


@pytest.mark.parametrize("config", [GPT2, GEMMA])
def test_logits_are_finite_and_depend_on_the_tokens(tmp_path: Path, config: DecoderConfig) -> None:
    path = RandomDecoder(config=config).onnx_path(tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    make = representative_inputs(config)
    sizes = {"batch": 1, "tokens": 8, "past": 0, "total": 8}
    one, other = (session.run(["logits"], make(sizes, np.random.default_rng(seed)))[0] for seed in (0, 1))
    assert np.isfinite(one).all()
    assert 0.01 < one.std() < 10
    assert np.abs(one - other).max() > 0.1 * one.std()
