"""From a path or a name to a specification, and to the canonical decoder that ONNX Runtime runs."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from assay.errors import AssayError, CapacityError, ModelError, TokenizerError, UnknownNameError
from assay.models.decoders.read_config import config_from_hf
from assay.models.providers import GgufFile, HuggingFaceFolder
from assay.models.providers.random_decoder import RandomWeightsOf
from assay.models.registry import find_model
from assay.models.sources import capacity
from assay.models.sources import text as text_module
from assay.models.sources.gguf_model import open_gguf
from assay.models.spec import ModelSpec, Weights

CONFIG = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers.": "blk.",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "_cache_folder", lambda: tmp_path / "cache")


def _tensors() -> dict[str, np.ndarray[Any, Any]]:
    weights = RandomWeightsOf(config_from_hf(CONFIG))
    return {name: weights.read(name) for name in weights.names()}


def write_folder(folder: Path, *, words: int = 256) -> Path:
    """The model as transformers saves it, with a tokenizer of ``words`` words."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(_tensors(), folder / "model.safetensors")
    vocabulary = {f"w{number}": number for number in range(words)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return folder


def write_gguf_model(
    path: Path, kind: str = "F32", *, architecture: str = "llama", tokens: int = 300, parts: int = 1
) -> Path:
    """The same model as llama.cpp's conversion writes it: rows of queries and keys in pairs."""
    writer = GGUFWriter(path, architecture)
    for key, value in {
        "block_count": 2,
        "context_length": 32,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 16,
    }.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{number}" for number in range(tokens)])
    writer.add_token_scores([float(-number) for number in range(tokens)])
    writer.add_uint32("tokenizer.ggml.bos_token_id", 1)
    writer.add_uint32("tokenizer.ggml.eos_token_id", 2)
    for name, values in _tensors().items():
        for one, other in GGUF_NAMES.items():
            name = name.replace(one, other)
        if "attn_q" in name or "attn_k" in name:
            heads = len(values) // 16
            values = values.reshape(heads, 2, 8, 64).swapaxes(1, 2).reshape(values.shape)
        if kind == "F32" or values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            type_ = GGMLQuantizationType[kind]
            writer.add_tensor(name, quantize(values, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _logits(spec: ModelSpec, folder: Path) -> np.ndarray[Any, Any]:
    folder.mkdir()
    session = onnxruntime.InferenceSession(
        str(spec.provider.onnx_path(folder)), providers=["CPUExecutionProvider"]
    )
    assert spec.representative_inputs is not None
    sizes = {"batch": 1, "tokens": 9, "past": 0, "total": 9}
    found: np.ndarray[Any, Any] = session.run(
        ["logits"], spec.representative_inputs(sizes, np.random.default_rng(0))
    )[0]
    return found


def test_a_file_and_a_folder_of_the_same_weights_are_the_same_model(tmp_path: Path) -> None:
    folder = find_model(str(write_folder(tmp_path / "tiny")))
    file = find_model(str(write_gguf_model(tmp_path / "tiny-f32.gguf")))
    assert (folder.name, file.name) == ("tiny", "tiny-f32")
    assert isinstance(folder.provider, HuggingFaceFolder)
    assert isinstance(file.provider, GgufFile)
    assert folder.inputs == file.inputs
    assert folder.weights is file.weights is Weights.TRAINED
    assert folder.decoder is not None
    assert file.decoder is not None
    assert (folder.decoder.vocabulary, folder.decoder.layers, folder.decoder.head_dim) == (300, 2, 16)
    assert folder.decoder.eos_ids == file.decoder.eos_ids == (2,)
    assert (folder.decoder.add_bos, file.decoder.add_bos) == (False, True)
    one, other = _logits(folder, tmp_path / "1"), _logits(file, tmp_path / "2")
    assert one.std() > 0.05
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "loss"), [("F16", 2e-3), ("Q8_0", 0.05), ("Q4_1", 0.5)])
def test_quantized_files_are_near_it(tmp_path: Path, kind: str, loss: float) -> None:
    whole = _logits(find_model(str(write_gguf_model(tmp_path / "f32.gguf"))), tmp_path / "1")
    rounded = _logits(find_model(str(write_gguf_model(tmp_path / "q.gguf", kind))), tmp_path / "2")
    assert 0 < np.abs(whole - rounded).max() < loss * np.abs(whole).max()


def test_a_model_of_the_local_hub_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / "abc"
    write_folder(snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = find_model("org/tiny")
    assert spec.name == "tiny"
    assert isinstance(spec.provider, HuggingFaceFolder)
    assert spec.provider.path == snapshot
    with pytest.raises(UnknownNameError, match="nothing is downloaded"):
        find_model("org/other")


def test_a_folder_may_hold_one_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = write_gguf_model(tmp_path / "folder" / "x.gguf")
    folder, file = find_model(str(tmp_path / "folder")), find_model(str(path))
    assert (folder.name, folder.provider, folder.decoder) == (file.name, file.provider, file.decoder)
    shutil.copy(path, tmp_path / "without-suffix")
    assert isinstance(find_model(str(tmp_path / "without-suffix")).provider, GgufFile)


def test_another_content_is_another_provider(tmp_path: Path) -> None:
    path = write_gguf_model(tmp_path / "x.gguf")
    before = find_model(str(path)).provider
    write_gguf_model(path, "F16")
    assert find_model(str(path)).provider != before
    folder = write_folder(tmp_path / "tiny")
    before = find_model(str(folder)).provider
    (folder / "config.json").write_text(json.dumps(CONFIG | {"rms_norm_eps": 1e-6}))
    assert find_model(str(folder)).provider != before


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="its ids go up to 300, and the model has 300 tokens"):
        find_model(str(write_folder(tmp_path / "tiny", words=301)))


def test_an_unknown_architecture_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'mamba' is not known") as raised:
        find_model(str(write_gguf_model(tmp_path / "x.gguf", architecture="mamba")))
    assert "llama" in (raised.value.hint or "")


@pytest.mark.parametrize("source", ["file", "folder"])
def test_a_model_larger_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    path = write_folder(tmp_path / "x") if source == "folder" else write_gguf_model(tmp_path / "x.gguf")
    spec = find_model(str(path))
    monkeypatch.setattr(capacity, "memory_bytes", lambda: 1000)
    with pytest.raises(CapacityError, match=r"'x.* needs at least .* and this machine has"):
        spec.provider.onnx_path(tmp_path)
    assert not list(tmp_path.glob("decoder*"))


def test_weights_that_are_not_finite_leave_nothing_behind(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny")
    tensors = _tensors()
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    save_file(tensors, folder / "model.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ModelError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' has 1 weights"):
        find_model(str(folder)).provider.onnx_path(out)
    assert not (out / "decoder.onnx").exists()


def test_a_part_of_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is one of 3 parts of a model") as raised:
        find_model(str(write_gguf_model(tmp_path / "x-00001-of-00003.gguf", parts=3)))
    assert "--merge" in (raised.value.hint or "")


def test_truncated_files_are_refused_whole(tmp_path: Path) -> None:
    path = write_gguf_model(tmp_path / "x.gguf")
    content = path.read_bytes()
    for length in (len(content) - 1, len(content) // 2, open_gguf(path).header.data_offset, 100, 3):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            find_model(str(path))


def _fuzz(path: Path, rounds: int, seed: int) -> tuple[int, int]:
    """Opens models whose headers differ in some bytes; how many opened, and how many were refused."""
    header = open_gguf(path).header
    content = path.read_bytes()
    generator = random.Random(seed)
    opened = refused = 0
    for _ in range(rounds):
        changed = bytearray(content)
        for _ in range(generator.randint(1, 6)):
            changed[generator.randrange(header.data_offset)] = generator.choice(
                [0, 1, 255, generator.randrange(256)]
            )
        path.write_bytes(changed)
        try:
            model = open_gguf(path)
            model.decoder()
            opened += 1
        except AssayError:
            refused += 1
    return opened, refused


def test_changed_headers_are_opened_or_refused(tmp_path: Path) -> None:
    opened, refused = _fuzz(write_gguf_model(tmp_path / "x.gguf"), rounds=300, seed=1)
    assert opened > 20
    assert refused > 50


@pytest.mark.slow
def test_many_changed_headers_are_opened_or_refused(tmp_path: Path) -> None:
    opened, refused = _fuzz(write_gguf_model(tmp_path / "x.gguf"), rounds=2500, seed=2)
    assert opened > 100
    assert refused > 250
