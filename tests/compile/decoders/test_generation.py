"""Text from a compiled artifact: what a plain loop over the definition gives."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.build import build_artifact
from assay.compile.decoders.interface import DecoderOptions
from assay.errors import CapacityError, UsageError
from assay.runtime import Decoder, load_decoder
from assay.runtime.generate.estimate import estimate_memory
from assay.runtime.generate.paged_decoder import LogitsOf
from assay.runtime.generate.request import FinishReason

pytestmark = pytest.mark.slow

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": ({}, {"cache_dtype": "float32"}),
    "window": ({"window": 40}, {"cache_dtype": "float16"}),
    "gpt2": ({"rotary": False, "kv_heads": 4}, {"cache_dtype": "int8"}),
}
TOLERANCE = {"float32": 2e-4, "float16": 2e-2, "int8": 0.2}


@pytest.fixture(scope="module", params=KINDS)
def built(
    request: pytest.FixtureRequest, tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    """A model and its artifact, whose calls take few tokens so that there are many of them."""
    shape, options = KINDS[request.param]
    model = tiny.Tiny(**shape)
    folder = tmp_path_factory.mktemp(request.param)
    build_artifact(
        tiny.model_spec(model, folder, eos_ids=()),
        target="x86-64-v3",
        cache=folder / "cache",
        output=folder / "artifact",
        decoder=DecoderOptions(max_tokens=24, max_sequences=3, max_rows=12, **options),
    )
    return model, folder / "artifact"


@pytest.fixture(scope="module")
def decoder(built: tuple[Any, Path]) -> Decoder:
    return load_decoder(built[1], context=160, sequences=3, threads=2)


def ids_of(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 97, count).tolist()


def check(decoder: Decoder, actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE[decoder.info.cache_dtype])


def follows(tiny: ModuleType, model: Any, decoder: Decoder, prompt: list[int], tokens: Any) -> None:
    """Every token is the most likely one by the definition, or as good as that."""
    logits = tiny.logits_of(model, np.array([*prompt, *tokens]))[len(prompt) - 1 : -1]
    chosen = logits[np.arange(len(tokens)), list(tokens)]
    assert (logits.max(-1) - chosen <= 2 * TOLERANCE[decoder.info.cache_dtype]).all()


def test_logits_of_prompts_in_chunks(tiny: ModuleType, built: tuple[Any, Path], decoder: Decoder) -> None:
    model, _ = built
    prompts = [ids_of(count, count) for count in (70, 3, 130)]
    places = [decoder.sequence() for _ in prompts]
    wanted = [tiny.logits_of(model, np.array(prompt)) for prompt in prompts]
    parts = list(zip(places, prompts, strict=True))
    check(decoder, decoder.forward(parts, LogitsOf.ALL), np.concatenate(wanted))
    more = [(place, [7]) for place in places]
    expected = [tiny.logits_of(model, np.array([*prompt, 7]))[-1] for prompt in prompts]
    check(decoder, decoder.forward(more), np.stack(expected))
    for place in places:
        place.close()


def test_forks_and_going_back(tiny: ModuleType, built: tuple[Any, Path], decoder: Decoder) -> None:
    model, _ = built
    prompt = ids_of(50)
    first = decoder.sequence()
    decoder.forward([(first, prompt)])
    second = first.fork()
    result = decoder.forward([(first, [3, 4]), (second, [5])])
    check(decoder, result[0], tiny.logits_of(model, np.array([*prompt, 3, 4]))[-1])
    check(decoder, result[1], tiny.logits_of(model, np.array([*prompt, 5]))[-1])
    second.truncate(45)
    check(
        decoder, decoder.forward([(second, [6])])[0], tiny.logits_of(model, np.array([*prompt[:45], 6]))[-1]
    )
    check(
        decoder, decoder.forward([(first, [8])])[0], tiny.logits_of(model, np.array([*prompt, 3, 4, 8]))[-1]
    )
    first.close()
    second.close()


@pytest.mark.parametrize("options", [{}, {"ngram": True}], ids=["plain", "ngram"])
def test_greedy_text(
    tiny: ModuleType, built: tuple[Any, Path], decoder: Decoder, options: dict[str, Any]
) -> None:
    prompt = [*ids_of(20), *ids_of(20)]
    result = decoder.generate(prompt, max_new_tokens=100, **options).result()
    assert result.finish_reason is FinishReason.LENGTH
    follows(tiny, built[0], decoder, prompt, result.tokens)


def test_a_draft(tiny: ModuleType, built: tuple[Any, Path], decoder: Decoder) -> None:
    draft = load_decoder(built[1], context=160, threads=1)
    result = decoder.generate(ids_of(30), max_new_tokens=60, draft=draft).result()
    follows(tiny, built[0], decoder, ids_of(30), result.tokens)
    rate = result.statistics.acceptance_rate
    assert rate is not None
    assert rate > 0.8  # the model proposes to itself; rounding makes the difference
    assert result.statistics.passes < 25


def test_a_batch(tiny: ModuleType, built: tuple[Any, Path], decoder: Decoder) -> None:
    prompts = [ids_of(count, count) for count in (5, 60, 1, 33, 20)]
    for prompt, each in zip(prompts, decoder.generate_batch(prompts, max_new_tokens=40), strict=True):
        follows(tiny, built[0], decoder, prompt, each.tokens)
    assert decoder.paged.pool.free == decoder.paged.pool.size


def test_a_kept_text(tiny: ModuleType, built: tuple[Any, Path], decoder: Decoder) -> None:
    place, prompt = decoder.sequence(), ids_of(40)
    first = decoder.generate(prompt, max_new_tokens=20, sequence=place).result()
    longer = [*prompt, *first.tokens, *ids_of(10, 1)]
    second = decoder.generate(longer, max_new_tokens=20, sequence=place).result()
    assert second.statistics.reused_tokens == 59
    follows(tiny, built[0], decoder, longer, second.tokens)
    place.close()


def test_threads_do_not_change_the_text(built: tuple[Any, Path]) -> None:
    texts = [
        load_decoder(built[1], context=160, threads=count)
        .generate(ids_of(30), max_new_tokens=50)
        .result()
        .tokens
        for count in (1, 2)
    ]
    assert texts[0] == texts[1]


def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    built: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.runtime.generate import estimate

    monkeypatch.setattr(estimate, "free_memory", lambda: 10_000_000)
    with pytest.raises(CapacityError, match="does not fit into memory"):
        load_decoder(built[1])
    with pytest.raises(UsageError, match="from 1 to the model's 256 tokens"):
        load_decoder(built[1], context=257)
    with pytest.raises(UsageError, match="sequences must be at least 1"):
        load_decoder(built[1], sequences=0)


def test_the_cache_is_as_large_as_estimated(built: tuple[Any, Path], decoder: Decoder) -> None:
    from assay.runtime.artifact import open_artifact

    manifest = open_artifact(built[1]).manifest
    estimate = estimate_memory(manifest, manifest.levels[0], context=160, sequences=3)
    assert estimate.cache == decoder.paged.cache.nbytes
    assert estimate.weights == sum(weight.bytes for weight in manifest.weights)
