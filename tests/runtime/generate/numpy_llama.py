"""A tiny random Llama in NumPy: as an engine over the paged cache, and without any cache as its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.runtime.generate.cache import KvCache
from assay.runtime.generate.engine import StepArguments
from assay.runtime.generate.pages import PageCopy
from assay.runtime.manifest import DecoderInfo

HIDDEN = 32


def make_info(**changes: Any) -> DecoderInfo:
    fields: dict[str, Any] = {
        "architecture": "llama",
        "vocabulary": 61,
        "context_length": 256,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "page_tokens": 32,
        "cache_dtype": "float32",
        "max_tokens": 48,
        "max_sequences": 4,
        "max_rows": 16,
        "eos_ids": (1,),
    }
    return DecoderInfo(**{**fields, **changes})


class Weights:
    """Random weights; ``seed`` makes models differ, ``sharpness`` how sure they are."""

    def __init__(self, info: DecoderInfo, seed: int = 0, sharpness: float = 3.0) -> None:
        generator = np.random.default_rng(seed)

        def matrix(rows: int, columns: int) -> np.ndarray:
            return generator.standard_normal((rows, columns)).astype(np.float32) / np.float32(rows**0.5)

        self.embedding = generator.standard_normal((info.vocabulary, HIDDEN)).astype(np.float32)
        queries, keys = info.heads * info.head_dim, info.kv_heads * info.head_dim
        self.layers = [
            {
                "q": matrix(HIDDEN, queries),
                "k": matrix(HIDDEN, keys),
                "v": matrix(HIDDEN, keys),
                "o": matrix(queries, HIDDEN),
                "gate": matrix(HIDDEN, 48),
                "up": matrix(HIDDEN, 48),
                "down": matrix(48, HIDDEN),
            }
            for _ in range(info.layers)
        ]
        self.head = matrix(HIDDEN, info.vocabulary) * np.float32(sharpness)


def norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def rotate(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``x`` [tokens, heads, head_dim], halves rotated."""
    half = x.shape[-1] // 2
    angles = positions[:, None, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def feed_forward(x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
    gate = norm(x) @ layer["gate"]
    return x + (gate / (1 + np.exp(-gate)) * (norm(x) @ layer["up"])) @ layer["down"]


def dense_logits(info: DecoderInfo, weights: Weights, tokens: list[int]) -> np.ndarray:
    """Logits [tokens, vocabulary] of a whole sequence at once."""
    count = len(tokens)
    positions = np.arange(count)
    distance = positions[:, None] - positions[None, :]
    visible = (distance >= 0) & (distance < (info.window or count))
    x = weights.embedding[tokens]
    for layer in weights.layers:
        h = norm(x)
        q = rotate((h @ layer["q"]).reshape(count, info.heads, -1), positions)
        k = rotate((h @ layer["k"]).reshape(count, info.kv_heads, -1), positions)
        v = (h @ layer["v"]).reshape(count, info.kv_heads, -1)
        group = info.heads // info.kv_heads
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / info.head_dim**0.5
        mixed = np.einsum("hqk,khd->qhd", softmax(np.where(visible, scores, -np.inf)), v)
        x = feed_forward(x + mixed.reshape(count, -1) @ layer["o"], layer)
    return norm(x) @ weights.head


@dataclass
class NumpyLlama:
    """An engine for ``PagedDecoder``; ``calls`` notes tokens, sequences and rows of each call."""

    info: DecoderInfo
    weights: Weights
    cache: KvCache

    def __post_init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []

    def copy_page(self, copy: PageCopy) -> None:
        self.cache.copy_page(copy)

    def run(self, arguments: StepArguments, threads: int) -> np.ndarray:
        ids, positions = arguments.input_ids[0], arguments.position_ids[0]
        offsets, past = arguments.sequence_offsets, arguments.past_lengths
        self.calls.append((len(ids), len(past), len(arguments.logits_rows)))
        x = self.weights.embedding[ids]
        for number, layer in enumerate(self.weights.layers):
            h = norm(x)
            q = rotate((h @ layer["q"]).reshape(len(ids), self.info.heads, -1), positions)
            k = rotate((h @ layer["k"]).reshape(len(ids), self.info.kv_heads, -1), positions)
            v = (h @ layer["v"]).reshape(len(ids), self.info.kv_heads, -1)
            mixed = np.zeros_like(q)
            for sequence, start in enumerate(past):
                rows = slice(offsets[sequence], offsets[sequence + 1])
                table = arguments.page_table[sequence]
                for key, value, position in zip(k[rows], v[rows], positions[rows], strict=True):
                    assert start <= position < start + offsets[sequence + 1] - offsets[sequence]
                    self.write(table, number, position, key, value)
                for row, position in zip(range(rows.start, rows.stop), positions[rows], strict=True):
                    mixed[row] = self.attend(table, number, q[row], position)
            x = feed_forward(x + mixed.reshape(len(ids), -1) @ layer["o"], layer)
        return norm(x[arguments.logits_rows]) @ self.weights.head

    def write(self, table: np.ndarray, layer: int, position: int, key: np.ndarray, value: np.ndarray) -> None:
        page, slot = table[position // 32], position % 32
        for index, (what, shape) in enumerate([(key, (-1, 32)), (value, (32, -1))]):
            for head in range(self.info.kv_heads):
                place = self.cache.arrays[0][page, layer, index, head].reshape(shape)
                stored = what[head]
                if self.info.cache_dtype == "int8":
                    scale = max(float(np.abs(stored).max()) / 127, 1e-20)
                    self.cache.arrays[1][page, layer, index, head, slot] = scale
                    stored = np.rint(stored / scale)
                if index == 0:
                    place[:, slot] = stored
                else:
                    place[slot] = stored

    def attend(self, table: np.ndarray, layer: int, query: np.ndarray, position: int) -> np.ndarray:
        first = max(0, position + 1 - (self.info.window or position + 1))
        mixed = np.empty_like(query)
        group = self.info.heads // self.info.kv_heads
        for head in range(self.info.heads):
            keys, values = [], []
            for token in range(first, position + 1):
                page, slot = table[token // 32], token % 32
                both = self.cache.arrays[0][page, layer, :, head // group].astype(np.float32)
                key, value = both[0].reshape(-1, 32)[:, slot], both[1].reshape(32, -1)[slot]
                if self.info.cache_dtype == "int8":
                    scales = self.cache.arrays[1][page, layer, :, head // group, slot]
                    key, value = key * scales[0], value * scales[1]
                keys.append(key)
                values.append(value)
            scores = np.array(keys) @ query[head] / self.info.head_dim**0.5
            mixed[head] = softmax(scores) @ np.array(values)
        return mixed
