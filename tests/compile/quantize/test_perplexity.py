"""Perplexity against its definition, and the texts that come with the package."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assay.compile.quantize.perplexity import ArtifactLanguageModel, cross_entropy, perplexity
from assay.compile.quantize.samples import Purpose, read_text
from assay.errors import UsageError


class Counting:
    """Logits of a bigram model; remembers what it was asked for."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.lengths: list[int] = []

    def logits(self, tokens: Any) -> Any:
        self.lengths.append(len(tokens))
        return self.table[tokens]


@pytest.mark.parametrize("window", [2, 7, 16, 64, 200])
def test_every_token_but_the_first_is_predicted_once(window: int) -> None:
    generator = np.random.default_rng(0)
    table = generator.standard_normal((10, 10)).astype(np.float32)
    tokens = generator.integers(0, 10, 101)
    model = Counting(table)
    found = perplexity(model, tokens, window=window)
    chances = np.exp(table.astype(np.float64))
    chances /= chances.sum(1, keepdims=True)
    logs = [np.log(chances[a, b]) for a, b in itertools.pairwise(tokens)]
    # A bigram model needs no more context than a window has.
    assert found.tokens == 100
    assert found.value == pytest.approx(np.exp(-np.mean(logs)))
    assert max(model.lengths) < max(window, 2)


def test_it_ends_after_enough_predictions() -> None:
    model = Counting(np.zeros((5, 5), np.float32))
    found = perplexity(model, np.arange(400) % 5, window=40, most=50)
    assert found.value == pytest.approx(5)
    assert 50 <= found.tokens < 80


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0, -1e4]], np.float32)
    assert cross_entropy(logits, np.array([0])) == pytest.approx(0)
    assert cross_entropy(logits, np.array([2])) == pytest.approx(2e4)


def test_one_token_is_no_text() -> None:
    with pytest.raises(UsageError, match="two tokens"):
        perplexity(Counting(np.zeros((5, 5), np.float32)), np.array([1]))


def test_the_texts_are_of_a_fitting_length_and_differ() -> None:
    calibration, evaluation = read_text(Purpose.CALIBRATION), read_text(Purpose.EVALUATION)
    assert 20_000 < len(evaluation) < 60_000
    assert len(calibration) > 5_000
    shared = {part for part in calibration.split("\n\n") if len(part) > 60} & set(evaluation.split("\n\n"))
    assert not shared


class FakeDecoder:
    """The part of a loaded decoder that perplexity uses: the logits of a token name that token."""

    def __init__(self, add_bos: bool) -> None:
        self.info = SimpleNamespace(add_bos=add_bos, bos_ids=(9,))
        self.open = 0
        self.calls: list[list[int]] = []

    def sequence(self) -> Any:
        self.open += 1
        return SimpleNamespace(close=self.close)

    def close(self) -> None:
        self.open -= 1

    def forward(self, parts: Any, logits: Any) -> Any:
        ((_, tokens),) = parts
        assert logits == "all"
        self.calls.append(tokens)
        return np.eye(10, dtype=np.float32)[tokens]


@pytest.mark.parametrize("add_bos", [True, False])
def test_a_compiled_decoder_starts_as_its_texts_do(add_bos: bool) -> None:
    decoder = FakeDecoder(add_bos)
    model = ArtifactLanguageModel(decoder)  # type: ignore[arg-type]
    found = model.logits(np.array([3, 1, 4]))
    assert found.argmax(1).tolist() == [3, 1, 4]
    assert decoder.calls == [[9, 3, 1, 4] if add_bos else [3, 1, 4]]
    assert decoder.open == 0
