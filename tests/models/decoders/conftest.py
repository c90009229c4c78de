"""Small decoders that the tests share: weights in memory, sessions with a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.export import export_decoder
from assay.models.decoders.mapping import Naming
from assay.models.decoders.weights import BlockQuantized, Tensor

LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "hidden_act": "silu",
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 61,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    "layer_norm_epsilon": 1e-5,
}


class DictWeights:
    """Weights from a dictionary, noting which were read."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        self.read_names: list[str] = []

    def names(self) -> Sequence[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def read(self, name: str) -> Tensor:
        self.read_names.append(name)
        return self.tensors[name]


def llama_weights(config: DecoderConfig, seed: int = 0) -> dict[str, Any]:
    """Random float32 weights of a Llama under Hugging Face's names."""
    generator = np.random.default_rng(seed)
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocabulary, config.hidden)}
    for layer in range(config.layers):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}input_layernorm.weight": (config.hidden,),
            f"{at}self_attn.q_proj.weight": (query, config.hidden),
            f"{at}self_attn.k_proj.weight": (key, config.hidden),
            f"{at}self_attn.v_proj.weight": (key, config.hidden),
            f"{at}self_attn.o_proj.weight": (config.hidden, query),
            f"{at}post_attention_layernorm.weight": (config.hidden,),
            f"{at}mlp.gate_proj.weight": (config.ffn, config.hidden),
            f"{at}mlp.up_proj.weight": (config.ffn, config.hidden),
            f"{at}mlp.down_proj.weight": (config.hidden, config.ffn),
        }
    shapes |= {"model.norm.weight": (config.hidden,)}
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocabulary, config.hidden)
    return _draw(shapes, generator)


def gpt2_weights(config: DecoderConfig, seed: int = 0) -> dict[str, Any]:
    """Random float32 weights of a GPT-2 under Hugging Face's names; its matrices are [in, out]."""
    hidden, ffn = config.hidden, config.ffn
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocabulary, hidden),
        "wpe.weight": (config.context_length, hidden),
    }
    for layer in range(config.layers):
        at = f"h.{layer}."
        for name, shape in (
            ("attn.c_attn", (hidden, 3 * hidden)),
            ("attn.c_proj", (hidden, hidden)),
            ("mlp.c_fc", (hidden, ffn)),
            ("mlp.c_proj", (ffn, hidden)),
        ):
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[1:]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{at}{name}.weight": (hidden,), f"{at}{name}.bias": (hidden,)}
    shapes |= {"ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}
    return _draw(shapes, np.random.default_rng(seed))


def _draw(shapes: Mapping[str, tuple[int, ...]], generator: np.random.Generator) -> dict[str, Any]:
    return {
        name: (
            (0.15 * generator.standard_normal(shape)).astype(np.float32)
            if len(shape) > 1
            else (1 + 0.3 * generator.standard_normal(shape)).astype(np.float32)
        )
        for name, shape in shapes.items()
    }


def quantize(matrix: Any, bits: int, *, zero_points: bool) -> BlockQuantized:
    """``matrix`` rounded in blocks of 32, from its smallest to its largest value or symmetric."""
    rows, columns = matrix.shape
    blocks = matrix.reshape(rows, columns // 32, 32)
    top = 2**bits - 1
    if zero_points:
        low = blocks.min(-1)
        scales = (blocks.max(-1) - low) / top
        zeros = (-low / scales).astype(np.float32)
    else:
        scales = np.abs(blocks).max(-1) / (2 ** (bits - 1) - 1)
        zeros = np.full(scales.shape, 2 ** (bits - 1), np.float32)
    codes = np.clip(np.rint(blocks / scales[..., None] + zeros[..., None]), 0, top).astype(np.uint8)
    return BlockQuantized(
        bits=bits,
        block_size=32,
        codes=codes.reshape(rows, columns),
        scales=scales.astype(np.float32),
        zero_points=zeros if zero_points else None,
    )


class CachedSession:
    """A canonical decoder in ONNX Runtime, one thread, with its cache between calls."""

    def __init__(self, path: Path, config: DecoderConfig) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._config = config
        empty = np.zeros((1, config.kv_heads, 0, config.head_dim), np.float32)
        self._past = {
            f"past_key_values.{layer}.{part}": empty
            for layer in range(config.layers)
            for part in ("key", "value")
        }
        self._length = 0

    def advance(self, ids: Any) -> Any:
        """Logits [tokens, vocabulary] of ``ids`` [tokens] behind what came before."""
        start, self._length = self._length, self._length + len(ids)
        feeds = {"input_ids": np.asarray(ids, np.int64)[None], **self._past}
        feeds["attention_mask"] = np.ones((1, self._length), np.int64)
        if self._config.rope is None:
            feeds["position_ids"] = np.arange(start, self._length, dtype=np.int64)[None]
        logits, *present = self._session.run(None, feeds)
        self._past = dict(zip(self._past, present, strict=True))
        return logits[0]

    def in_steps(self, ids: Any, steps: Sequence[int]) -> Any:
        """Logits of ``ids``, given in pieces of ``steps`` tokens."""
        ends = np.cumsum(steps)
        assert ends[-1] == len(ids)
        return np.concatenate(
            [self.advance(ids[end - step : end]) for end, step in zip(ends, steps, strict=True)]
        )


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """Export a configuration with weights, and load it: ``session(config, weights, naming)``."""

    def make(config: DecoderConfig, weights: Any, naming: Naming = Naming.HF) -> CachedSession:
        path = tmp_path / "model.onnx"
        export_decoder(config, weights, path, naming=naming)
        return CachedSession(path, config)

    return make
