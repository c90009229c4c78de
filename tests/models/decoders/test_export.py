"""The canonical decoder beside NumPy, in ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from assay.errors import ModelError, StorageError
from assay.models.decoders import initializers
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.export import export_decoder
from assay.models.decoders.mapping import Naming
from assay.models.decoders.read_config import config_from_hf
from assay.models.decoders.weights import BlockQuantized, dequantize

from . import reference
from .conftest import GPT2, LLAMA, CachedSession, DictWeights, gpt2_weights, llama_weights, quantize

IDS = np.random.default_rng(1).integers(0, 61, 14)
STEPS = (8, 1, 1, 4)


def llama_reference(weights: Any) -> Any:
    plain = {
        name: dequantize(value) if isinstance(value, BlockQuantized) else value
        for name, value in weights.items()
    }
    return reference.llama(plain, IDS, heads=4, kv_heads=2, theta=500.0, epsilon=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_llama_computes_what_numpy_does(session: Any, tied: bool) -> None:
    config = config_from_hf({**LLAMA, "tie_word_embeddings": tied})
    weights = llama_weights(config)
    logits = session(config, DictWeights(weights)).in_steps(IDS, STEPS)
    np.testing.assert_allclose(logits, llama_reference(weights), atol=2e-5)


def test_gpt2_computes_what_numpy_does(session: Any) -> None:
    config = config_from_hf(GPT2)
    weights = gpt2_weights(config)
    logits = session(config, DictWeights(weights)).in_steps(IDS, STEPS)
    np.testing.assert_allclose(logits, reference.gpt2(weights, IDS, heads=4, epsilon=1e-5), atol=2e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_of_16_bits_stay_so_in_the_file(session: Any, tmp_path: Path, dtype: Any, tied: bool) -> None:
    config = config_from_hf({**LLAMA, "tie_word_embeddings": tied})
    weights = {name: value.astype(dtype) for name, value in llama_weights(config).items()}
    logits = session(config, DictWeights(weights)).in_steps(IDS, STEPS)
    np.testing.assert_allclose(logits, llama_reference(weights), atol=2e-5)
    graph = onnx.load(tmp_path / "model.onnx").graph
    matrices = [
        tensor for tensor in graph.initializer if len(tensor.dims) == 2 and "cache" not in tensor.name
    ]
    assert {tensor.data_type for tensor in matrices} == {
        onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    }


@pytest.mark.parametrize(
    ("bits", "zero_points", "tied"), [(4, True, False), (4, False, True), (8, False, True), (4, True, True)]
)
def test_quantized_weights_keep_their_codes(tmp_path: Path, bits: int, zero_points: bool, tied: bool) -> None:
    config = config_from_hf({**LLAMA, "tie_word_embeddings": tied})
    weights: dict[str, Any] = {
        name: quantize(value, bits, zero_points=zero_points) if value.ndim == 2 else value
        for name, value in llama_weights(config).items()
    }
    path = tmp_path / "model.onnx"
    export_decoder(config, DictWeights(weights), path, naming=Naming.HF)
    logits = exact(path, config).in_steps(IDS, STEPS)
    np.testing.assert_allclose(logits, llama_reference(weights), atol=2e-5)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    down = weights["model.layers.1.mlp.down_proj.weight"]
    codes = stored["layers.1.down.weight"]
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], -1)
    np.testing.assert_array_equal(codes.reshape(down.codes.shape), down.codes)
    np.testing.assert_array_equal(stored["layers.1.down.weight.scales"], down.scales)
    tables = [name for name in stored if name.startswith(("embedding.weight", "head.weight"))]
    assert ("head.weight" in tables) == (not tied)
    # GatherBlockQuantized has no float zero points, so that such a table is stored for reading, too.
    assert ("embedding.weight.dequantized" in tables) == zero_points


def test_8_bits_with_float_zero_points_are_dequantized(session: Any, tmp_path: Path) -> None:
    config = config_from_hf({**LLAMA, "tie_word_embeddings": True})
    weights: dict[str, Any] = {
        name: quantize(value, 8, zero_points=True) if value.ndim == 2 else value
        for name, value in llama_weights(config).items()
    }
    logits = session(config, DictWeights(weights)).in_steps(IDS, STEPS)
    np.testing.assert_allclose(logits, llama_reference(weights), atol=2e-5)
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "MatMulNBits" not in operators


def exact(path: Path, config: DecoderConfig) -> CachedSession:
    """The decoder at ``path`` with activations in float32, where ONNX Runtime would round them to 8 bits."""
    model = onnx.load(path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                assert attribute.i == 4
                attribute.i = 1
    other = path.with_name("exact.onnx")
    onnx.save(model, other)
    return CachedSession(other, config)


def test_weights_in_different_forms_are_multiplied_apart(tmp_path: Path) -> None:
    config = config_from_hf(LLAMA)
    weights: dict[str, Any] = llama_weights(config)
    for name, bits in (("self_attn.q", 4), ("self_attn.v", 8), ("mlp.up", 4)):
        key = f"model.layers.0.{name}_proj.weight"
        weights[key] = quantize(weights[key], bits, zero_points=False)
    path = tmp_path / "model.onnx"
    export_decoder(config, DictWeights(weights), path, naming=Naming.HF)
    np.testing.assert_allclose(exact(path, config).in_steps(IDS, STEPS), llama_reference(weights), atol=2e-5)
    names = {node.name for node in onnx.load(path).graph.node}
    assert {"layers.0.q", "layers.0.k", "layers.0.v", "layers.0.gate_half", "layers.1.qkv"} <= names
    assert "layers.0.qkv" not in names


def test_biases_follow_weights_in_different_forms(tmp_path: Path) -> None:
    config = config_from_hf({**LLAMA, "model_type": "qwen2"})
    generator = np.random.default_rng(3)
    weights: dict[str, Any] = llama_weights(config)
    for layer in range(2):
        for letter, size in (("q", 64), ("k", 32), ("v", 32)):
            bias = generator.standard_normal(size).astype(np.float32)
            weights[f"model.layers.{layer}.self_attn.{letter}_proj.bias"] = bias
    together, apart = tmp_path / "together.onnx", tmp_path / "apart.onnx"
    export_decoder(config, DictWeights(weights), together, naming=Naming.HF)
    key = "model.layers.0.self_attn.v_proj.weight"
    weights[key] = weights[key].astype(np.float16).astype(np.float32)
    expected = tmp_path / "expected.onnx"
    export_decoder(config, DictWeights(weights), expected, naming=Naming.HF)
    weights[key] = weights[key].astype(np.float16)
    export_decoder(config, DictWeights(weights), apart, naming=Naming.HF)
    logits = [CachedSession(path, config).in_steps(IDS, STEPS) for path in (together, expected, apart)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-5
    np.testing.assert_allclose(logits[2], logits[1], atol=2e-5)


def test_two_sequences_of_one_batch_do_not_meet(session: Any, tmp_path: Path) -> None:
    import onnxruntime

    config = config_from_hf(LLAMA)
    alone = session(config, DictWeights(llama_weights(config))).advance(IDS)
    both = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    empty = np.zeros((2, config.kv_heads, 0, config.head_dim), np.float32)
    feeds = {value.name: empty for value in both.get_inputs() if value.name.startswith("past")}
    ids = np.stack([IDS, IDS[::-1]])
    logits = both.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids), **feeds})[0]
    np.testing.assert_allclose(logits[0], alone, atol=2e-5)
    assert np.abs(logits[1] - alone).max() > 0.1


def test_large_weights_lie_beside_the_graph(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_from_hf({**LLAMA, "tie_word_embeddings": True})
    weights = llama_weights(config)
    inline = session(config, DictWeights(weights)).advance(IDS)
    assert not (tmp_path / "model.bin").exists()
    monkeypatch.setattr(initializers, "INLINE_BYTES", 100_000)
    beside = session(config, DictWeights(weights)).advance(IDS)
    np.testing.assert_array_equal(beside, inline)
    assert (tmp_path / "model.bin").stat().st_size >= 4 * sum(
        value.size for name, value in weights.items() if value.ndim == 2
    )
    assert (tmp_path / "model.onnx").stat().st_size < 30_000
    first = (tmp_path / "model.onnx").read_bytes(), (tmp_path / "model.bin").read_bytes()
    export_decoder(config, DictWeights(weights), tmp_path / "model.onnx", naming=Naming.HF)
    assert first == ((tmp_path / "model.onnx").read_bytes(), (tmp_path / "model.bin").read_bytes())


def test_the_graph_passes_the_checker(session: Any, tmp_path: Path) -> None:
    for values, draw in ((LLAMA, llama_weights), (GPT2, gpt2_weights)):
        config = config_from_hf(values)
        session(config, DictWeights(draw(config)))
        onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


def test_a_rotation_that_onnx_runtime_lacks_is_refused(tmp_path: Path) -> None:
    config = config_from_hf({**LLAMA, "partial_rotary_factor": 0.5})
    with pytest.raises(ModelError, match="rotates 8 elements of a head"):
        export_decoder(config, DictWeights({}), tmp_path / "model.onnx", naming=Naming.HF)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    config = config_from_hf(LLAMA)
    with pytest.raises(StorageError, match="cannot be written"):
        export_decoder(
            config, DictWeights(llama_weights(config)), tmp_path / "none" / "model.onnx", naming=Naming.HF
        )


def test_a_tensor_that_is_not_what_was_announced_is_refused(tmp_path: Path) -> None:
    config = config_from_hf(LLAMA)

    class Liar(DictWeights):
        def shape(self, name: str) -> tuple[int, ...]:
            return (
                tuple(reversed(super().shape(name)))
                if name.endswith("down_proj.weight")
                else super().shape(name)
            )

    weights = llama_weights(config)
    name = "model.layers.0.mlp.down_proj.weight"
    for layer in range(2):
        key = f"model.layers.{layer}.mlp.down_proj.weight"
        weights[key] = np.ascontiguousarray(weights[key].T)
    with pytest.raises(ModelError, match=name):
        export_decoder(config, Liar(weights), tmp_path / "model.onnx", naming=Naming.HF)


def test_rotary_factors_of_a_gguf_slow_the_angles(session: Any) -> None:
    config = dataclasses.replace(config_from_hf(LLAMA))
    weights = gguf_names(llama_weights(config), config)
    plain = session(config, DictWeights(weights), Naming.GGUF).in_steps(IDS, STEPS)
    np.testing.assert_allclose(plain, llama_reference(llama_weights(config)), atol=2e-5)
    weights["rope_freqs.weight"] = np.full(8, 2.0, np.float32)
    slowed = session(config, DictWeights(weights), Naming.GGUF).in_steps(IDS, STEPS)
    rope = config_from_hf({**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}).rope
    linear = session(dataclasses.replace(config, rope=rope), DictWeights(llama_weights(config)))
    np.testing.assert_allclose(slowed, linear.in_steps(IDS, STEPS), atol=2e-5)
    assert np.abs(slowed - plain).max() > 1e-3


def gguf_names(weights: dict[str, Any], config: DecoderConfig) -> dict[str, Any]:
    """Weights as ``convert_hf_to_gguf.py`` of llama.cpp stores a Llama: renamed, rows of q and k in pairs."""
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.layers": "blk",
    }
    result = {}
    for name, value in weights.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if "attn_q" in name or "attn_k" in name:
            heads = config.heads if "attn_q" in name else config.kv_heads
            value = (
                value.reshape(heads, 2, value.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(value.shape)
            )
        result[name] = value
    return result
