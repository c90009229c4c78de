from __future__ import annotations

import numpy as np
import pytest

from assay.errors import CapacityError, InterfaceError
from assay.runtime.generate.paged_decoder import LogitsOf, PagedDecoder


@pytest.fixture
def make(llama):
    """A function that makes a decoder of the tiny model, and the reference without a cache."""

    def make(*, context: int = 128, sequences: int = 2, **changes):
        info = llama.make_info(**changes)
        weights = llama.Weights(info)
        decoder = PagedDecoder(
            info,
            lambda cache: llama.NumpyLlama(info, weights, cache),
            context=context,
            sequences=sequences,
            threads=1,
        )
        return decoder, lambda tokens: llama.dense_logits(info, weights, tokens)

    return make


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 61, count).tolist()


def close(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 48, 49, 120])
def test_prefill_in_chunks_and_then_steps(make, count):
    decoder, reference = make()
    tokens = tokens_of(128)
    sequence = decoder.sequence()
    close(decoder.forward([(sequence, tokens[:count])])[0], reference(tokens[:count])[-1])
    for end in range(count + 1, count + 4):
        close(decoder.forward([(sequence, tokens[end - 1 : end])])[0], reference(tokens[:end])[-1])
    assert sequence.tokens == tokens[: count + 3]


def test_logits_of_all_tokens(make):
    decoder, reference = make()
    tokens = tokens_of(70)
    result = decoder.forward([(decoder.sequence(), tokens)], LogitsOf.ALL)
    close(result, reference(tokens))
    assert all(rows <= 16 for _, _, rows in decoder._engine.calls)


@pytest.mark.parametrize("logits", list(LogitsOf))
def test_sequences_of_different_lengths_in_one_call(make, logits):
    decoder, reference = make(sequences=6)
    prompts = [tokens_of(count, count) for count in (5, 60, 1, 33, 20, 7)]
    result = decoder.forward([(decoder.sequence(), prompt) for prompt in prompts], logits)
    wanted = [reference(prompt) for prompt in prompts]
    close(result, np.concatenate([each if logits is LogitsOf.ALL else each[-1:] for each in wanted]))
    assert max(sequences for _, sequences, _ in decoder._engine.calls) > 1
    assert all(tokens <= 48 and count <= 4 for tokens, count, _ in decoder._engine.calls)


def test_forks_go_separate_ways(make):
    decoder, reference = make(sequences=3)
    tokens = tokens_of(40)
    first = decoder.sequence()
    decoder.forward([(first, tokens)])
    second, third = first.fork(), first.fork()
    free = decoder.pool.free
    parts = [(first, [3, 4]), (second, [5, 6]), (third, [7])]
    result = decoder.forward(parts)
    assert decoder.pool.free == free - 2  # the last holder writes in place
    for row, (_, more) in zip(result, parts, strict=True):
        close(row, reference(tokens + more)[-1])


def test_going_back_and_another_way(make):
    decoder, reference = make()
    tokens = tokens_of(80)
    sequence = decoder.sequence()
    decoder.forward([(sequence, tokens)])
    sequence.truncate(37)
    other = tokens_of(20, 5)
    close(decoder.forward([(sequence, other)])[0], reference(tokens[:37] + other)[-1])


def test_common_beginning_is_kept(make):
    decoder, _ = make()
    sequence = decoder.sequence()
    decoder.forward([(sequence, [5, 6, 7, 8])])
    assert sequence.keep_common([5, 6, 9, 8]) == 2
    assert sequence.tokens == [5, 6]
    assert sequence.keep_common([5, 6, 7]) == 2
    assert sequence.keep_common([1]) == 0


@pytest.mark.parametrize("window", [1, 7, 32, 50])
def test_window_holds_few_pages(make, window):
    decoder, reference = make(context=240, sequences=1, window=window)
    tokens = tokens_of(230)
    sequence = decoder.sequence()
    close(decoder.forward([(sequence, tokens[:210])])[0], reference(tokens[:210])[-1])
    for end in range(211, 231):
        close(decoder.forward([(sequence, tokens[end - 1 : end])])[0], reference(tokens[:end])[-1])
    assert len(sequence.pages.pages) < 230 // 32
    sequence.truncate(228)
    close(decoder.forward([(sequence, tokens[:1])])[0], reference([*tokens[:228], tokens[0]])[-1])
    sequence.truncate(100)
    assert len(sequence) == (0 if not sequence.pages.can_truncate(100) else 100)


def test_int8_cache_is_near(make):
    decoder, reference = make(cache_dtype="int8")
    tokens = tokens_of(60)
    result = decoder.forward([(decoder.sequence(), tokens)])[0]
    assert np.abs(result - reference(tokens)[-1]).max() < 0.3
    assert len(decoder.cache.arrays) == 2
    fork = decoder.sequence()
    decoder.forward([(fork, tokens[:20])])
    other = fork.fork()
    one = decoder.forward([(fork, [9])])
    np.testing.assert_array_equal(decoder.forward([(other, [9])]), one)


def test_full_cache(make):
    decoder, reference = make(context=64, sequences=1)
    first = decoder.sequence()
    decoder.forward([(first, tokens_of(40))])
    with pytest.raises(CapacityError, match="The cache is full"):
        decoder.forward([(decoder.sequence(), [4])])
    first.close()
    close(decoder.forward([(decoder.sequence(), [4])])[0], reference([4])[-1])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "no tokens to add"),
        ([3, 61], "There is no token 61: the vocabulary has 61"),
        ([-1], "There is no token -1"),
        ([3] * 129, "129 tokens are more than the context of 128"),
    ],
)
def test_wrong_tokens(make, tokens, message):
    decoder, _ = make()
    sequence = decoder.sequence()
    with pytest.raises(InterfaceError, match=message):
        decoder.forward([(sequence, tokens)])
    assert len(sequence) == 0
    assert decoder.pool.free == decoder.pool.size


def test_cache_memory(make):
    decoder, _ = make(cache_dtype="float16")
    (array,) = decoder.cache.arrays
    assert array.shape == (8, 2, 2, 2, 256)
    assert array.dtype == np.float16
    assert array.ctypes.data % 64 == 0
    assert decoder.cache.nbytes == array.nbytes
