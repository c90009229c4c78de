"""Compiled decoders against ONNX Runtime and NumPy, whichever way tokens are fed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Compile = Callable[..., Any]
Reference = Callable[[Any, np.ndarray], np.ndarray]

KINDS: list[dict[str, Any]] = [
    {},
    {"rotary": False, "kv_heads": 4},
    {"window": 21, "packed": True},
    {"softcap": 2.0, "heads": 6, "kv_heads": 1, "layers": 1},
]
TOLERANCE = {"float32": 5e-6, "float16": 3e-3, "int8": 8e-2}


@pytest.mark.parametrize(
    "scheduled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["loops", "scheduled"]
)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_way_of_feeding_tokens(
    tiny: ModuleType,
    compile_decoder: Compile,
    reference: Reference,
    kind: dict[str, Any],
    scheduled: bool,
) -> None:
    model = tiny.Tiny(**kind)
    compiled = compile_decoder(model, cache_dtype="float32", scheduled=scheduled)
    generator = np.random.default_rng(3)
    first, second = (generator.integers(0, model.vocabulary, count) for count in (75, 40))
    expected = [reference(model, ids) for ids in (first, second)]
    np.testing.assert_allclose(expected[0], tiny.logits_of(model, first), atol=1e-5)
    one, two = [7, 2, 9], [4, 0]
    calls = [
        [(first[:1], 0, one)],
        [(first[1:38], 1, one)],
        [(second[:33], 0, two), (first[38:39], 38, one)],
        [(first[39:64], 39, one), (second[33:34], 33, two)],
        [(first[64:65], 64, one), (second[34:40], 34, two)],
        *([(first[i : i + 1], i, one)] for i in range(65, 75)),
    ]
    known = {id(one): expected[0], id(two): expected[1]}
    for call in calls:
        wanted = np.concatenate([known[id(pages)][past : past + len(ids)] for ids, past, pages in call])
        np.testing.assert_allclose(compiled(call), wanted, atol=TOLERANCE["float32"])


@pytest.mark.parametrize("cache_dtype", ["float16", "int8"])
def test_narrow_caches(
    tiny: ModuleType, compile_decoder: Compile, reference: Reference, cache_dtype: str
) -> None:
    model = tiny.Tiny(kv_heads=1)
    compiled = compile_decoder(model, cache_dtype=cache_dtype)
    ids = np.random.default_rng(4).integers(0, model.vocabulary, 50)
    got = np.concatenate([compiled([(ids[:41], 0, [5, 1])]), compiled([(ids[41:], 41, [5, 1])])])
    np.testing.assert_allclose(got, reference(model, ids), atol=TOLERANCE[cache_dtype])


def test_the_cache_is_written_in_the_callers_memory(tiny: ModuleType, compile_decoder: Compile) -> None:
    model = tiny.Tiny()
    compiled = compile_decoder(model, cache_dtype="float32")
    (cache,) = compiled.cache
    before = cache.copy()
    compiled([(np.arange(35), 0, [3, 6])])
    changed = cache != before
    assert changed[3].all()
    keys, values = (changed[6, :, plane] for plane in (0, 1))
    slots = keys.reshape(model.layers, model.kv_heads, model.head_dim, 32)
    assert slots[..., :3].all()
    assert not slots[..., 3:].any()
    rows = values.reshape(model.layers, model.kv_heads, 32, model.head_dim)
    assert rows[:, :, :3].all()
    assert not rows[:, :, 3:].any()
    assert not np.delete(changed, [3, 6], axis=0).any()


def test_rows_in_any_order(tiny: ModuleType, compile_decoder: Compile, reference: Reference) -> None:
    model = tiny.Tiny()
    compiled = compile_decoder(model, cache_dtype="float32")
    ids = np.arange(20)
    got = compiled([(ids, 0, [1])], rows=[19, 0, 7, 7])
    np.testing.assert_allclose(got, reference(model, ids)[[19, 0, 7, 7]], atol=TOLERANCE["float32"])


def test_pages_may_be_shared(tiny: ModuleType, compile_decoder: Compile, reference: Reference) -> None:
    """Two sequences that begin alike read the same page."""
    model = tiny.Tiny()
    compiled = compile_decoder(model, cache_dtype="float32")
    ids = np.random.default_rng(5).integers(0, model.vocabulary, 34)
    compiled([(ids[:32], 0, [8])])
    ends = [ids[32:34], ids[32:34][::-1].copy()]
    got = compiled([(ends[0], 32, [8, 1]), (ends[1], 32, [8, 2])])
    wanted = [reference(model, np.concatenate([ids[:32], end]))[32:] for end in ends]
    np.testing.assert_allclose(got, np.concatenate(wanted), atol=TOLERANCE["float32"])


def test_without_fusion(tiny: ModuleType, compile_decoder: Compile, reference: Reference) -> None:
    model = tiny.Tiny(layers=1)
    compiled = compile_decoder(model, cache_dtype="float32", profile="debug")
    ids = np.arange(12)
    np.testing.assert_allclose(compiled([(ids, 0, [0])]), reference(model, ids), atol=TOLERANCE["float32"])
