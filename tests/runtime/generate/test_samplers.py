"""Every sampler against a plain reference, and against transformers' own where that is installed."""

from __future__ import annotations

import numpy as np
import pytest

from assay.errors import UnknownNameError, UsageError
from assay.runtime.generate.samplers import SAMPLERS
from assay.runtime.generate.samplers.candidates import Candidates, Distribution
from assay.runtime.generate.samplers.chain import make_chain

NO_HISTORY = np.zeros(0, np.int64)


def make_logits(seed: int, size: int = 500) -> np.ndarray:
    logits = np.random.default_rng(seed).standard_normal(size).astype(np.float32) * 3
    logits[size // 2 : size // 2 + 8] = logits[size // 3]  # ties
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def ranked(logits: np.ndarray) -> list[int]:
    """Tokens from the most to the least likely, of equal ones the lowest id first."""
    return sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))


def masked(logits: np.ndarray, kept: list[int]) -> np.ndarray:
    result = np.full(len(logits), -np.inf, np.float32)
    result[kept] = logits[kept]
    return result


def reference(name: str, value: float, logits: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Logits of the whole vocabulary after one sampler, written as its paper says it."""
    if name == "temperature":
        return logits / np.float32(value)
    if name == "top_k":
        return masked(logits, ranked(logits)[: int(value)])
    if name == "top_p":
        probabilities, kept, total = softmax(logits), [], 0.0
        for token in ranked(logits):
            kept.append(token)
            total += probabilities[token]
            if total >= value:
                break
        return masked(logits, kept)
    if name == "min_p":
        probabilities = softmax(logits)
        return masked(
            logits, [t for t in range(len(logits)) if probabilities[t] >= value * probabilities.max()]
        )
    assert name == "repetition_penalty"
    result = logits.copy()
    for token in set(history.tolist()):
        result[token] = logits[token] / value if logits[token] > 0 else logits[token] * value
    return result


def dense(distribution: Distribution, size: int) -> np.ndarray:
    result = np.zeros(size)
    result[slice(None) if distribution.ids is None else distribution.ids] = distribution.probabilities
    return result


CASES = [
    ("temperature", 0.3),
    ("temperature", 2.5),
    ("top_k", 1),
    ("top_k", 7),
    ("top_k", 499),
    ("top_k", 5000),
    ("top_p", 0.05),
    ("top_p", 0.5),
    ("top_p", 0.97),
    ("top_p", 0.9999),
    ("min_p", 0.02),
    ("min_p", 0.6),
    ("min_p", 1.0),
    ("repetition_penalty", 1.3),
    ("repetition_penalty", 0.8),
]


def test_every_sampler_has_a_case():
    assert {name for name, _ in CASES} == set(SAMPLERS)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "value"), CASES)
def test_one_sampler(name, value, seed):
    logits = make_logits(seed)
    history = np.random.default_rng(seed).integers(0, 500, 40)
    before = logits.copy()
    candidates = SAMPLERS[name].make(value).apply(Candidates(logits=logits), history)
    np.testing.assert_array_equal(logits, before)
    expected = softmax(reference(name, value, logits, history))
    np.testing.assert_allclose(dense(candidates.distribution(), 500), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [3, 40, 9000])
def test_the_nucleus_of_flat_and_of_large_vocabularies(size):
    logits = np.random.default_rng(0).standard_normal(size).astype(np.float32) * np.float32(0.1)
    found = SAMPLERS["top_p"].make(0.9).apply(Candidates(logits=logits), NO_HISTORY)
    expected = np.flatnonzero(np.isfinite(reference("top_p", 0.9, logits, NO_HISTORY)))
    assert found.ids is not None
    np.testing.assert_array_equal(found.ids, expected)


def test_all_together_in_order():
    logits, history = make_logits(1), np.array([3, 3, 9, 250])
    settings = {"min_p": 0.02, "top_p": 0.9, "top_k": 60, "temperature": 1.4, "repetition_penalty": 1.2}
    expected = logits
    for name in ("repetition_penalty", "temperature", "top_k", "top_p", "min_p"):
        expected = reference(name, settings[name], expected, history)
    found = make_chain(settings).distribution(logits, history)
    np.testing.assert_allclose(dense(found, 500), softmax(expected), atol=1e-6, rtol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_transformers(seed):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.generation import logits_process as theirs

    logits = np.random.default_rng(seed).standard_normal(400).astype(np.float32) * 3
    history = np.random.default_rng(seed).integers(0, 400, 30)
    scores, ids = torch.from_numpy(logits.copy())[None], torch.from_numpy(history)[None]
    for each in (
        theirs.RepetitionPenaltyLogitsProcessor(1.2),
        theirs.TemperatureLogitsWarper(0.7),
        theirs.TopKLogitsWarper(80),
        theirs.TopPLogitsWarper(0.9),
        theirs.MinPLogitsWarper(0.03),
    ):
        scores = each(ids, scores)
    chain = make_chain(
        {"repetition_penalty": 1.2, "temperature": 0.7, "top_k": 80, "top_p": 0.9, "min_p": 0.03}
    )
    found = dense(chain.distribution(logits, history), 400)
    np.testing.assert_allclose(found, scores.softmax(-1)[0].numpy(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0, "top_k": 5, "top_p": 0.3}, {"repetition_penalty": 1.0}]
)
def test_greedy_takes_the_lowest_id_of_equal_ones(settings):
    logits = np.array([0, 2, 5, 1, 5, 5], np.float32)
    chain = make_chain(settings)
    assert chain.greedy
    assert chain.distribution(logits, NO_HISTORY).draw(np.random.default_rng(0)) == 2


def test_greedy_respects_the_penalty():
    logits = np.array([0, 2, 5, 4.9], np.float32)
    assert make_chain({"repetition_penalty": 1.5}).distribution(logits, np.array([2])).of(3) == 1


def test_setting_the_neutral_number_asks_for_a_draw():
    chain = make_chain({"temperature": 1.0})
    assert not chain.greedy
    logits = make_logits(0)
    np.testing.assert_allclose(
        chain.distribution(logits, NO_HISTORY).probabilities, softmax(logits), rtol=1e-5
    )
    assert make_chain({"top_k": None}).greedy


def test_draws_follow_the_distribution_and_the_seed():
    distribution = make_chain({"top_k": 4}).distribution(make_logits(5), NO_HISTORY)
    draws = [distribution.draw(generator) for generator in [np.random.default_rng(3)] for _ in range(20000)]
    frequencies = np.bincount(draws, minlength=500) / 20000
    assert np.abs(frequencies - dense(distribution, 500)).max() < 0.015
    again = np.random.default_rng(3)
    assert [distribution.draw(again) for _ in range(50)] == draws[:50]


@pytest.mark.parametrize(("mine", "other"), [(None, None), (5, None), (None, 5), (5, 9)])
def test_residual(mine, other):
    first = make_chain({"top_k": mine, "temperature": 1}).distribution(make_logits(1), NO_HISTORY)
    second = make_chain({"top_k": other, "temperature": 1}).distribution(make_logits(2), NO_HISTORY)
    left = np.maximum(dense(first, 500) - dense(second, 500), 0)
    np.testing.assert_allclose(dense(first.residual(second), 500), left / left.sum(), rtol=1e-9, atol=1e-12)
    assert first.residual(first) is first


def test_extreme_temperatures():
    logits = np.array([1, 3, 2], np.float32)
    assert make_chain({"temperature": 1e-30}).distribution(logits, NO_HISTORY).of(1) == 1
    flat = make_chain({"temperature": 1e30}).distribution(logits, NO_HISTORY).probabilities
    np.testing.assert_allclose(flat, 1 / 3, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.2),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("repetition_penalty", float("nan")),
        ("temperature", True),
    ],
)
def test_numbers_out_of_range(name, value):
    with pytest.raises(UsageError, match=name):
        make_chain({name: value})


def test_unknown_sampler():
    with pytest.raises(UnknownNameError, match="no sampler named 'topk'") as caught:
        make_chain({"topk": 4})
    assert "top_k" in str(caught.value)
