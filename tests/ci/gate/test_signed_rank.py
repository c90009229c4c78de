from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import wilcoxon

from assay.ci.gate.signed_rank import critical_count, tail, walsh_averages


@pytest.mark.parametrize("rounds", [1, 2, 5, 9])
def test_the_tail_counts_all_signs(rounds: int) -> None:
    sums = [
        sum(rank for rank, sign in enumerate(signs, start=1) if sign)
        for signs in itertools.product((0, 1), repeat=rounds)
    ]
    expected = [sum(total <= w for total in sums) / len(sums) for w in range(rounds * (rounds + 1) // 2 + 1)]
    assert tail(rounds) == pytest.approx(expected)


@pytest.mark.parametrize("rounds", [10, 30])
def test_p_values_are_scipys(rounds: int) -> None:
    values = np.random.default_rng(rounds).standard_normal(rounds) + 0.3
    below = int((walsh_averages(values[None, :]) <= 0).sum())
    assert tail(rounds)[below] == pytest.approx(
        wilcoxon(values, alternative="greater", method="exact").pvalue
    )


def test_far_tails_are_exact() -> None:
    assert tail(60)[:4] == pytest.approx([2.0**-60, 2 * 2.0**-60, 3 * 2.0**-60, 5 * 2.0**-60], rel=1e-12)
    assert tail(200)[-1] == pytest.approx(1)


def test_critical_counts() -> None:
    assert critical_count(5, 1 / 64) == -1
    assert critical_count(5, 1 / 32) == 0
    assert critical_count(10, 0.025) == 8  # from printed tables
    assert critical_count(20, 0.005) == 37


def test_walsh_averages_are_those_of_all_pairs() -> None:
    values = np.array([[1.0, 2.0, 4.0], [0.0, 0.0, 6.0]])
    assert np.sort(walsh_averages(values)).tolist() == [[1, 1.5, 2, 2.5, 3, 4], [0, 0, 0, 3, 3, 6]]
