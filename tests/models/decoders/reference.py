"""Decoders in NumPy, whole sequences at once and in float64: what the exported graphs are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def llama(
    weights: Mapping[str, Any], ids: Any, *, heads: int, kv_heads: int, theta: float, epsilon: float
) -> Any:
    """Logits [tokens, vocabulary] of a Llama with weights under Hugging Face's names."""
    get = {name: value.astype(np.float64) for name, value in weights.items()}
    x = get["model.embed_tokens.weight"][ids]
    layer = 0
    while f"model.layers.{layer}.input_layernorm.weight" in get:
        at = f"model.layers.{layer}."
        h = _rms(x, get[f"{at}input_layernorm.weight"], epsilon)
        q, k, v = (
            _heads(h @ get[f"{at}self_attn.{name}_proj.weight"].T, count)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        q, k = _rotate(q, theta), _rotate(k, theta)
        group = heads // kv_heads
        attended = _attend(q, np.repeat(k, group, 0), np.repeat(v, group, 0))
        x = x + attended @ get[f"{at}self_attn.o_proj.weight"].T
        h = _rms(x, get[f"{at}post_attention_layernorm.weight"], epsilon)
        gate, up = h @ get[f"{at}mlp.gate_proj.weight"].T, h @ get[f"{at}mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ get[f"{at}mlp.down_proj.weight"].T
        layer += 1
    head = get.get("lm_head.weight", get["model.embed_tokens.weight"])
    return _rms(x, get["model.norm.weight"], epsilon) @ head.T


def gpt2(weights: Mapping[str, Any], ids: Any, *, heads: int, epsilon: float) -> Any:
    """Logits [tokens, vocabulary] of a GPT-2 with weights under Hugging Face's names, without prefix."""
    get = {name: value.astype(np.float64) for name, value in weights.items()}

    def linear(h: Any, name: str) -> Any:
        return h @ get[f"{name}.weight"] + get[f"{name}.bias"]

    def norm(h: Any, name: str) -> Any:
        centred = h - h.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * get[f"{name}.weight"]
            + get[f"{name}.bias"]
        )

    x = get["wte.weight"][ids] + get["wpe.weight"][: len(ids)]
    layer = 0
    while f"h.{layer}.ln_1.weight" in get:
        at = f"h.{layer}."
        q, k, v = (
            _heads(part, heads) for part in np.split(linear(norm(x, f"{at}ln_1"), f"{at}attn.c_attn"), 3, -1)
        )
        x = x + linear(_attend(q, k, v), f"{at}attn.c_proj")
        h = linear(norm(x, f"{at}ln_2"), f"{at}mlp.c_fc")
        h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + linear(h, f"{at}mlp.c_proj")
        layer += 1
    return norm(x, "ln_f") @ get["wte.weight"].T


def _rms(x: Any, weight: Any, epsilon: float) -> Any:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight


def _heads(x: Any, count: int) -> Any:
    return x.reshape(len(x), count, -1).swapaxes(0, 1)


def _rotate(x: Any, theta: float) -> Any:
    """Complex numbers of elements i and i + dim/2, turned by position."""
    half = x.shape[-1] // 2
    turns = np.arange(x.shape[1])[:, None] * theta ** (-np.arange(half) / half)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * turns)
    return np.concatenate([z.real, z.imag], -1)


def _attend(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    scores = np.where(np.tri(q.shape[1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    attended = (weights / weights.sum(-1, keepdims=True)) @ v
    return attended.swapaxes(0, 1).reshape(q.shape[1], -1)
