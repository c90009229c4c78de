"""Calls of a paged attention kernel on random numbers, and what NumPy makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.compile.schedules.paged_problem import PAGE_TOKENS, PagedProblem, Place


def make_problem(**changes: Any) -> PagedProblem:
    sizes: dict[str, Any] = {
        "heads": 4, "kv_heads": 2, "head_dim": 16, "rotary_dim": 16, "positions": 160, "scale": 0.25,
        "softcap": 0.0, "layers": 2, "cache_dtype": "float32",
    }  # fmt: skip
    return PagedProblem(**{**sizes, **changes})


def make_call(
    problem: PagedProblem, place: Place, spans: Sequence[tuple[int, int]], seed: int = 0
) -> dict[str, np.ndarray]:
    """The kernel's operands by name, less the output, for sequences of (past, new) tokens.

    Pages are dealt in random order, and hold random keys and values everywhere.
    """
    generator = np.random.default_rng(seed)
    needed = [-(-(past + new) // PAGE_TOKENS) for past, new in spans]
    pages, width = sum(needed) + 1, max(needed)
    table = np.full((len(spans), width), pages - 1, np.int32)
    free = list(generator.permutation(pages - 1))
    for s, count in enumerate(needed):
        table[s, :count] = [free.pop() for _ in range(count)]
    rows = sum(new for _, new in spans)
    planes = (pages, problem.layers, 2, problem.kv_heads)
    call: dict[str, np.ndarray] = {
        "qkv": generator.standard_normal((1, rows, problem.columns)).astype(np.float32)
    }
    if problem.rotary_dim:
        angles = generator.uniform(0, 6, (problem.positions, problem.rotary_dim // 2))
        call["cosines"], call["sines"] = (f(angles).astype(np.float32) for f in (np.cos, np.sin))
    positions = [np.arange(past, past + new) for past, new in spans]
    call["position_ids"] = np.concatenate(positions)[None].astype(np.int64)
    call["past_lengths"] = np.array([past for past, _ in spans], np.int32)
    call["sequence_offsets"] = np.cumsum([0, *(new for _, new in spans)]).astype(np.int32)
    call["page_table"] = table
    call["place"] = np.array(place.numbers(), np.int32)
    size = (*planes, PAGE_TOKENS * problem.head_dim)
    if problem.quantized:
        call["cache"] = generator.integers(-127, 128, size).astype(np.int8)
        call["scales"] = generator.uniform(0.005, 0.02, (*planes, PAGE_TOKENS)).astype(np.float32)
    else:
        call["cache"] = generator.standard_normal(size).astype(problem.cache_dtype)
    return call


def reference(
    problem: PagedProblem, place: Place, call: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Output, cache and scales after the call, computed in float64 from the definitions."""
    dim, kv, group, layer = problem.head_dim, problem.kv_heads, problem.group, place.layer
    cache = call["cache"].copy()
    scales = call["scales"].copy() if problem.quantized else None
    rows = call["qkv"][0].astype(np.float64).reshape(-1, problem.heads + 2 * kv, dim)
    queries, keys, values = np.split(rows, [problem.heads, problem.heads + kv], axis=1)
    queries, keys = (_turned(problem, call, x) for x in (queries, keys))
    output = np.zeros((1, len(rows), problem.heads, dim))
    for s, past in enumerate(call["past_lengths"]):
        begin, end = call["sequence_offsets"][s : s + 2]
        for row in range(begin, end):
            token = past + row - begin
            page, slot = call["page_table"][s, token // PAGE_TOKENS], token % PAGE_TOKENS
            for h in range(kv):
                for plane, vector in ((0, keys[row, h]), (1, values[row, h])):
                    stored = vector.astype(np.float32)
                    if scales is not None:
                        scale = np.float32(np.abs(stored).max()) / np.float32(127)
                        scales[page, layer, plane, h, slot] = scale
                        stored = np.round(stored / scale) if scale else stored * 0
                    view = cache[page, layer, plane, h]
                    if plane == 0:
                        view.reshape(dim, PAGE_TOKENS)[:, slot] = stored.astype(cache.dtype)
                    else:
                        view.reshape(PAGE_TOKENS, dim)[slot] = stored.astype(cache.dtype)
        for h in range(kv):
            if end == begin:
                continue
            tokens = range(past + end - begin)
            k, v = (
                np.stack([_stored(call, cache, scales, place, s, t, plane, h) for t in tokens])
                for plane in (0, 1)
            )
            for row in range(begin, end):
                token = past + row - begin
                first = 0 if place.window is None else max(0, token - place.window + 1)
                for q in range(h * group, (h + 1) * group):
                    scores = problem.scale * k[first : token + 1] @ queries[row, q]
                    if problem.softcap:
                        scores = problem.softcap * np.tanh(scores / problem.softcap)
                    weights = np.exp(scores - scores.max())
                    output[0, row, q] = weights @ v[first : token + 1] / weights.sum()
    return output.reshape(1, len(rows), -1).astype(np.float32), cache, scales


def _turned(problem: PagedProblem, call: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    half = problem.rotary_dim // 2
    if not half:
        return x
    at = call["position_ids"][0]
    cosine, sine = (call[name][at][:, None].astype(np.float64) for name in ("cosines", "sines"))
    a, b, rest = np.split(x, [half, 2 * half], axis=-1)
    return np.concatenate([a * cosine - b * sine, a * sine + b * cosine, rest], axis=-1)


def _stored(
    call: dict[str, np.ndarray], cache: np.ndarray, scales: np.ndarray | None, place: Place, sequence: int,
    token: int, plane: int, head: int,
) -> np.ndarray:  # fmt: skip
    page, slot = call["page_table"][sequence, token // PAGE_TOKENS], token % PAGE_TOKENS
    held = cache[page, place.layer, plane, head].astype(np.float64)
    vector = held.reshape(-1, PAGE_TOKENS)[:, slot] if plane == 0 else held.reshape(PAGE_TOKENS, -1)[slot]
    return vector if scales is None else vector * scales[page, place.layer, plane, head, slot]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A compiled kernel, to call with the operands by name: it gives the output and writes in place."""

    compiled: Any

    def __call__(self, problem: PagedProblem, operands: dict[str, np.ndarray]) -> np.ndarray:
        import tvm

        rows = operands["qkv"].shape[1]
        tensors = {name: tvm.runtime.tensor(array) for name, array in operands.items()}
        shape = (1, rows, problem.heads * problem.head_dim)
        output = tvm.runtime.tensor(np.full(shape, np.nan, np.float32))
        self.compiled["paged_attention"](*tensors.values(), output)
        for name in ("cache", "scales"):
            if name in tensors:
                operands[name][...] = tensors[name].numpy()
        return np.asarray(output.numpy())

    def assembly(self) -> str:
        """What LLVM made of it."""
        return str(self.compiled.mod.inspect_source("asm"))


def build(function: Any, cpu: str = "x86-64-v3") -> Kernel:
    """``function`` compiled for an LLVM CPU, as ``lower`` does it."""
    import tvm

    from assay.compile.lower import _NEEDLESS

    with tvm.transform.PassContext(disabled_pass=list(_NEEDLESS)):
        return Kernel(compiled=tvm.compile(function, target=tvm.target.Target({"kind": "llvm", "mcpu": cpu})))
