"""Whole generations on a tiny model in NumPy; what a plain loop over its reference gives is expected."""

from __future__ import annotations

import numpy as np
import pytest

from assay.errors import ArtifactError, CapacityError, InterfaceError, TokenizerError, UsageError
from assay.runtime.generate.decoder import Decoder
from assay.runtime.generate.request import FinishReason


@pytest.fixture
def make(llama):
    def make(*, seed: int = 0, context: int = 96, sequences: int = 2, **changes):
        changes = {"eos_ids": (), **changes}
        info = llama.make_info(**changes)
        weights = llama.Weights(info, seed)
        decoder = Decoder(
            info,
            lambda cache: llama.NumpyLlama(info, weights, cache),
            name="tiny",
            context=context,
            sequences=sequences,
            threads=1,
        )
        decoder.reference = lambda tokens: llama.dense_logits(info, weights, tokens)
        return decoder

    return make


def plain_greedy(decoder: Decoder, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(decoder.reference(tokens)[-1].argmax()))
    return tokens[len(prompt) :]


REPEATING = [7, 8, 9, 10, 11] * 4


def test_greedy(make):
    decoder = make()
    generation = decoder.generate([3, 4, 5], max_new_tokens=20)
    assert generation.finish_reason is None
    pieces = [piece.token for piece in generation]
    assert pieces == plain_greedy(decoder, [3, 4, 5], 20)
    assert generation.tokens == tuple(pieces)
    assert generation.finish_reason is FinishReason.LENGTH
    statistics = generation.statistics
    assert (statistics.prompt_tokens, statistics.tokens, statistics.passes) == (3, 20, 19)
    assert statistics.first_token_seconds > 0
    assert statistics.decode_rate is not None
    assert statistics.acceptance_rate is None
    assert decoder.paged.pool.free == decoder.paged.pool.size


@pytest.mark.parametrize("drafts", [1, 3, 8])
@pytest.mark.parametrize("how", ["ngram", "draft", "perfect draft"])
def test_speculation_gives_the_same_greedy_text(make, how, drafts):
    decoder = make()
    draft = make(seed=0 if how == "perfect draft" else 1, layers=2 if how == "perfect draft" else 1)
    options = {"ngram": True} if how == "ngram" else {"draft": draft}
    expected = plain_greedy(decoder, REPEATING, 30)
    generation = decoder.generate(REPEATING, max_new_tokens=30, draft_tokens=drafts, **options)
    assert [piece.token for piece in generation] == expected
    statistics = generation.statistics
    assert statistics.proposed_tokens >= statistics.accepted_tokens
    if how == "perfect draft":
        assert statistics.acceptance_rate == 1
        assert statistics.passes == -(-29 // (drafts + 1))
    for each in (decoder, draft):
        assert each.paged.pool.free == each.paged.pool.size


@pytest.mark.parametrize("how", ["none", "ngram", "draft"])
def test_sampled_text_has_the_distribution_of_the_model(make, how):
    """The second and third new token over many seeds, against the reference's probabilities."""
    decoder = make(vocabulary=5, layers=1)
    draft = make(vocabulary=5, layers=1, seed=3)
    options = {"none": {}, "ngram": {"ngram": True}, "draft": {"draft": draft}}[how]
    prompt, rounds = [1, 2, 3, 1, 2, 3, 1, 2], 400

    def probabilities(tokens: list[int]) -> np.ndarray:
        logits = decoder.reference(tokens)[-1].astype(np.float64) / 1.5
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    expected = np.zeros((5, 5, 5))
    for first in range(5):
        for second in range(5):
            start = probabilities(prompt)[first] * probabilities([*prompt, first])[second]
            expected[first, second] = start * probabilities([*prompt, first, second])
    found, taken = np.zeros((5, 5, 5)), 0
    cached = decoder.sequence()
    for seed in range(rounds):
        generation = decoder.generate(
            prompt, max_new_tokens=3, temperature=1.5, seed=seed, draft_tokens=2, sequence=cached, **options
        )
        for _ in generation:
            pass
        found[generation.tokens] += 1
        taken += generation.statistics.accepted_tokens
    assert taken > 0 or how == "none"
    # Cells that are rare together count as one, as the chi-squared test wants.
    rare = expected * rounds < 5
    observed = [*found[~rare], found[rare].sum()]
    wanted = [*expected[~rare] * rounds, expected[rare].sum() * rounds]
    chi_squared = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True))
    freedom = len(wanted) - 1
    assert freedom > 10
    assert chi_squared < freedom + 3.3 * (2 * freedom) ** 0.5 + 5


def test_seeds(make):
    decoder = make()
    texts = [
        decoder.generate([5], max_new_tokens=12, temperature=1.5, seed=s).result().tokens for s in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_ends(make):
    decoder = make()
    expected = plain_greedy(decoder, [3, 4, 5], 30)
    end = expected[6]
    first = expected.index(end)
    ending = make(eos_ids=(end,))
    result = ending.generate([3, 4, 5], max_new_tokens=30).result()
    assert list(result.tokens) == expected[: first + 1]
    assert result.finish_reason is FinishReason.STOP
    assert len(ending.generate([3, 4, 5], max_new_tokens=30, ignore_eos=True).result().tokens) == 30
    speculating = ending.generate([3, 4, 5], max_new_tokens=30, draft=make(), draft_tokens=8).result()
    assert speculating.tokens == result.tokens
    assert speculating.statistics.tokens == first + 1


@pytest.mark.parametrize("ngram", [False, True])
def test_the_context_is_an_end(make, ngram):
    decoder = make(context=40)
    result = decoder.generate(REPEATING, max_new_tokens=None, ngram=ngram).result()
    assert result.finish_reason is FinishReason.CONTEXT
    assert len(REPEATING) + len(result.tokens) == 40
    full = decoder.generate([3] * 40, max_new_tokens=None).result()
    assert len(full.tokens) == 1


def test_a_common_beginning_is_not_computed_again(make):
    decoder = make()
    place = decoder.sequence()
    prompt = [3, 4, 5, 6]
    first = decoder.generate(prompt, max_new_tokens=5, sequence=place).result()
    longer = [*prompt, *first.tokens, 7, 8]
    second = decoder.generate(longer, max_new_tokens=5, sequence=place)
    assert [piece.token for piece in second] == plain_greedy(decoder, longer, 5)
    assert second.statistics.reused_tokens == len(prompt) + 4  # the last token did not go in
    other = decoder.generate([3, 4, 9], max_new_tokens=4, sequence=place)
    assert [piece.token for piece in other] == plain_greedy(decoder, [3, 4, 9], 4)
    assert other.statistics.reused_tokens == 2
    same = decoder.generate([3, 4, 9], max_new_tokens=4, sequence=place).result()
    assert same.tokens == other.tokens
    assert same.statistics.reused_tokens == 2
    place.close()
    assert decoder.paged.pool.free == decoder.paged.pool.size


def test_ending_early_gives_memory_back(make):
    decoder = make()
    generation = decoder.generate([3, 4, 5])
    next(generation)
    assert decoder.paged.pool.free < decoder.paged.pool.size
    generation.close()
    assert decoder.paged.pool.free == decoder.paged.pool.size
    assert len(generation.tokens) == 1
    never_begun = decoder.generate([3])
    never_begun.close()


@pytest.mark.parametrize("ngram", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_batch(make, count, ngram):
    decoder = make(sequences=2)
    prompts = [REPEATING[: 4 + 3 * index] for index in range(count)]
    results = decoder.generate_batch(prompts, max_new_tokens=10, ngram=ngram)
    assert [list(each.tokens) for each in results] == [plain_greedy(decoder, each, 10) for each in prompts]
    assert all(each.finish_reason is FinishReason.LENGTH for each in results)
    assert decoder.paged.pool.free == decoder.paged.pool.size
    widest = max(sequences for _, sequences, _ in decoder.paged._engine.calls)
    assert widest == min(2, count)


def test_a_text_of_a_batch_does_not_depend_on_the_others(make):
    decoder = make(sequences=3)
    options = {"max_new_tokens": 8, "temperature": 1.2, "seed": 5}
    three = decoder.generate_batch([[3, 4], [5, 6, 7], [8]], **options)
    one = decoder.generate_batch([[3, 4]], **options)
    assert three[0].tokens == one[0].tokens
    assert len({each.tokens for each in three}) == 3


def test_window(make):
    decoder = make(window=20, context=200, sequences=1)
    expected = plain_greedy(decoder, REPEATING, 70)
    for options in ({}, {"ngram": True}, {"draft": make(seed=1, window=20, context=200)}):
        result = decoder.generate(REPEATING, max_new_tokens=70, **options).result()
        assert list(result.tokens) == expected


def test_full_cache_tells(make):
    decoder = make(sequences=1)
    place = decoder.sequence()
    decoder.generate([3] * 60, max_new_tokens=20, sequence=place).result()
    with pytest.raises(CapacityError, match="cache is full"):
        decoder.generate([3] * 60, max_new_tokens=2).result()
    place.close()
    decoder.generate([3] * 60, max_new_tokens=2).result()


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ([], {}, InterfaceError, "The prompt is empty"),
        ([61], {}, InterfaceError, "There is no token 61"),
        ([3] * 97, {}, InterfaceError, "97 tokens are more than the context of 96"),
        ("text", {}, TokenizerError, "tiny has no tokenizer"),
        ([3], {"stop": ["x"]}, TokenizerError, "no tokenizer, which stop strings need"),
        ([3], {"max_new_tokens": 0}, UsageError, "max_new_tokens must be at least 1"),
        ([3], {"draft_tokens": 0, "ngram": True}, UsageError, "draft_tokens must be at least 1"),
        ([3], {"top_p": 3}, UsageError, "top_p must be"),
        ([3], {"seed": -1}, UsageError, "seed must be 0 or above"),
    ],
)
def test_wrong_arguments(make, prompt, options, error, message):
    with pytest.raises(error, match=message):
        make().generate(prompt, **options)


def test_wrong_drafts(make):
    decoder = make()
    with pytest.raises(InterfaceError, match="vocabulary of 7, and tiny one of 61"):
        decoder.generate([3], draft=make(vocabulary=7))
    with pytest.raises(UsageError, match="not from both"):
        decoder.generate([3], draft=make(), ngram=True)


def test_no_chat_template(make):
    with pytest.raises(TokenizerError, match="no chat template"):
        _ = make().chat_template


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 1.0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}, {"repetition_penalty": 2}],
)
@pytest.mark.parametrize("which", [slice(None), slice(5, 6)])
def test_logits_that_are_not_finite(make, settings, which):
    decoder = make()
    run = decoder.paged._engine.run

    def damaged(*arguments):
        logits = run(*arguments)
        logits[:, which] = np.nan
        return logits

    decoder.paged._engine.run = damaged
    with pytest.raises(ArtifactError, match="not finite"):
        decoder.generate([3], **settings).result()
    assert decoder.paged.pool.free == decoder.paged.pool.size


def test_threads(make):
    decoder = make()
    decoder.threads = 3
    assert decoder.threads == 3
    with pytest.raises(UsageError, match="at least 1, not 0"):
        decoder.threads = 0
    assert repr(decoder) == "<Decoder tiny, context 96, 3 threads>"
