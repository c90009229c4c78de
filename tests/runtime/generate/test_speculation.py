"""Speculative decoding: the same greedy text, the same distribution, and caches that are rolled back."""

from __future__ import annotations

import numpy as np
import pytest

from assay.runtime.generate.history import TokenHistory
from assay.runtime.generate.samplers.candidates import Distribution
from assay.runtime.generate.samplers.chain import make_chain
from assay.runtime.generate.speculation.acceptance import accept
from assay.runtime.generate.speculation.drafter import NOTHING, Proposal
from assay.runtime.generate.speculation.ngram import NGramDrafter

GREEDY = make_chain({})
DRAW = make_chain({"temperature": 1.0})


def propose(tokens: list[int], count: int = 8, **settings: int) -> tuple[int, ...]:
    history, generator = TokenHistory(tokens), np.random.default_rng(0)
    return NGramDrafter(**settings).propose(history, count, GREEDY, generator).tokens


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], ()),
        ([5], ()),
        ([1, 2, 3], ()),
        ([1, 2, 9, 8, 7, 1, 2], (9, 8, 7, 1, 2)),
        ([1, 2, 9, 1, 2, 8, 1, 2], (8, 1, 2)),  # the latest place
        ([4, 1, 2, 9, 3, 1, 2, 8, 4, 1, 2], (9, 3, 1, 2, 8, 4, 1, 2)),  # the longest match
        ([7, 7, 7], (7,)),  # a match may overlap with the end
    ],
)
def test_ngram(tokens, expected):
    assert propose(tokens) == expected
    assert propose(tokens, 2) == expected[:2]


def test_ngram_sizes():
    assert propose([1, 9, 1], shortest=1) == (9, 1)
    assert propose([1, 9, 1], shortest=2) == ()


@pytest.mark.parametrize("seed", range(5))
def test_ngram_against_a_plain_search(seed):
    tokens = np.random.default_rng(seed).integers(0, 4, 60).tolist()
    for end in range(1, 60):
        text, expected = tokens[:end], ()
        for size in range(min(4, end - 1), 1, -1):
            starts = [s for s in range(end - size) if text[s : s + size] == text[-size:]]
            if starts:
                expected = tuple(text[starts[-1] + size :][:8])
                break
        assert propose(text) == expected


def logits_of(probabilities: list[float]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities)).astype(np.float32)


def make_proposal(tokens: list[int], distributions: list[list[float]]) -> Proposal:
    return Proposal(
        tokens=tuple(tokens),
        distributions=tuple(Distribution(probabilities=np.array(each)) for each in distributions),
    )


def test_greedy_takes_what_it_would_have_taken():
    rows = np.stack([logits_of([0.1, 0.2, 0.7]), logits_of([0.6, 0.3, 0.1]), logits_of([0.1, 0.8, 0.1])])
    for proposed, expected in (([2, 0], [2, 0, 1]), ([2, 1], [2, 0]), ([1, 0], [2])):
        history = TokenHistory([0])
        certain = Proposal(tokens=tuple(proposed), distributions=tuple(map(Distribution.certain, proposed)))
        taken = accept(rows, certain, GREEDY, history, np.random.default_rng(0))
        assert history.tokens.tolist() == [0, *expected]
        assert taken == len(expected) - 1


def test_without_a_proposal_one_token_is_drawn():
    history = TokenHistory([0])
    assert accept(logits_of([0, 0, 1])[None], NOTHING, DRAW, history, np.random.default_rng(0)) == 0
    assert history.tokens.tolist() == [0, 2]


P = [[0.5, 0.3, 0.15, 0.05], [0.1, 0.1, 0.1, 0.7], [0.25, 0.25, 0.5, 0.0]]
Q = [[0.2, 0.2, 0.2, 0.4], [0.7, 0.1, 0.1, 0.1]]


@pytest.mark.parametrize("kind", ["drawn", "certain"])
def test_the_distribution_is_that_of_the_model(kind):
    """Pairs of the first two tokens, counted; expected are products of P alone, whatever Q proposes."""
    generator = np.random.default_rng(7)
    rounds, counts, taken = 10000, np.zeros((4, 4)), 0
    rows = np.stack([logits_of(p) for p in P])
    for _ in range(rounds):
        if kind == "drawn":
            proposal = make_proposal([int(generator.choice(4, p=q)) for q in Q], Q)
        else:
            proposal = Proposal(
                tokens=(1, 3), distributions=(Distribution.certain(1), Distribution.certain(3))
            )
        history = TokenHistory([0])
        taken += accept(rows, proposal, DRAW, history, generator)
        new = history.tokens[1:].tolist()
        if len(new) == 1:  # the next round draws the second token from the model alone
            accept(rows[1:2], NOTHING, DRAW, history, generator)
            new = history.tokens[1:].tolist()
        counts[new[0], new[1]] += 1
    expected = rounds * np.outer(P[0], P[1])
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 37.7  # 15 degrees of freedom, 0.1%
    if kind == "drawn":
        first = sum(min(p, q) for p, q in zip(P[0], Q[0], strict=True))
        second = sum(min(p, q) for p, q in zip(P[1], Q[1], strict=True))
    else:
        first, second = P[0][1], P[1][3]
    assert taken / rounds == pytest.approx(first + first * second, abs=0.03)


def test_the_third_token_comes_from_the_last_row():
    generator = np.random.default_rng(1)
    rows = np.stack([logits_of(p) for p in P])
    counts = np.zeros(4)
    while counts.sum() < 4000:
        history = TokenHistory([0])
        if accept(rows, make_proposal([0, 3], [P[0], P[1]]), DRAW, history, generator) == 2:
            counts[history.last] += 1
    assert np.abs(counts / counts.sum() - P[2]).max() < 0.03
