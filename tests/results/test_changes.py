from __future__ import annotations

import math

import numpy as np
import pytest

from assay.results import changes
from assay.results.changes import FEWEST_POINTS, exact_changes, find_changes, noise_of


def noisy(seed, levels, spread=0.01):
    """A point for each of ``levels``, with relative noise of standard deviation ``spread``."""
    generator = np.random.default_rng(seed)
    return [float(value) for value in np.asarray(levels) * np.exp(generator.normal(0, spread, len(levels)))]


def test_a_step_is_located_and_sized():
    (change,) = find_changes(noisy(0, [1.0] * 14 + [1.08] * 16), least_effect=0.01)
    assert change.index == 14
    assert change.points == (14, 16)
    assert change.confirmed
    assert change.ratio == pytest.approx(1.08, abs=0.01)
    assert change.interval[0] < 1.08 < change.interval[1]
    assert change.before == pytest.approx(1.0, abs=0.01)
    assert change.after == pytest.approx(1.08, abs=0.01)
    assert 0.005 < change.threshold < 0.03


def test_steps_do_not_depend_on_the_unit_or_the_direction():
    values = noisy(1, [1.0] * 12 + [0.9] * 9 + [1.0] * 9)
    found = [change.index for change in find_changes(values, least_effect=0.01)]
    assert found == [12, 21]
    assert found == [
        change.index for change in find_changes([1e-6 * value for value in values], least_effect=0.01)
    ]
    assert [30 - change.index for change in find_changes(values[::-1], least_effect=0.01)] == [21, 12]


@pytest.mark.parametrize("tails", ["normal", "heavy", "disturbed"])
def test_noise_alone_is_no_change(tails):
    generator = np.random.default_rng(5)
    found = 0
    for _ in range(100):
        logs = generator.normal(size=30)
        if tails == "heavy":
            logs = generator.standard_t(2, size=30)
        elif tails == "disturbed":
            logs = logs + np.where(generator.random(30) < 0.05, generator.uniform(5, 30, 30), 0)
        found += any(
            change.confirmed for change in find_changes(np.exp(0.01 * logs).tolist(), least_effect=0.01)
        )
    assert found <= 1


def test_outliers_are_no_change_and_hide_none():
    values = noisy(2, [1.0] * 15 + [1.1] * 15)
    for index, factor in ((3, 3.0), (9, 0.5), (20, 2.0), (21, 2.0), (27, 0.6)):
        values[index] *= factor
    assert [change.index for change in find_changes(values, least_effect=0.01)] == [15]


def test_a_step_below_the_least_effect_does_not_matter():
    values = noisy(3, [1.0] * 15 + [1.006] * 15, spread=0.0003)
    assert find_changes(values, least_effect=0.01) == []
    assert [change.index for change in find_changes(values, least_effect=0.003)] == [15]


@pytest.mark.parametrize(("late", "confirmed"), [(1, False), (2, False), (3, True)])
def test_the_last_one_or_two_points_confirm_nothing(late, confirmed):
    (change,) = find_changes(noisy(4, [1.0] * (30 - late) + [1.3] * late), least_effect=0.01)
    assert change.index == 30 - late
    assert change.confirmed is confirmed


def test_series_without_noise_of_their_own():
    assert find_changes([2.0] * 30, least_effect=0.01) == []
    assert [change.index for change in find_changes([2.0] * 15 + [2.1] * 15, least_effect=0.01)] == [15]
    assert find_changes(noisy(6, [1.0] * 3 + [2.0] * 4), least_effect=0.01) == []
    assert FEWEST_POINTS == 8


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_value_that_is_not_positive_is_refused(value):
    with pytest.raises(ValueError, match="positive"):
        find_changes([1.0] * 10 + [value], least_effect=0.01)


def test_more_series_ask_for_more():
    values = noisy(7, [1.0] * 15 + [1.1] * 15)
    (alone,) = find_changes(values, least_effect=0.01)
    (among,) = find_changes(values, least_effect=0.01, together=1000)
    assert among.threshold > 1.2 * alone.threshold


def test_the_noise_is_the_far_fence_of_the_relative_changes():
    values = noisy(8, [1.0] * 40)
    relative = np.abs(np.diff(np.log(values)))
    low, high = np.quantile(relative, [0.25, 0.75])
    distances = np.abs(np.log(values) - np.median(np.log(values)))
    near, far = np.quantile(distances, [0.25, 0.75])
    expected = min(high + 3 * (high - low), math.sqrt(2) * (far + 3 * (far - near)))
    assert noise_of(values) == pytest.approx(math.expm1(expected))
    with pytest.raises(ValueError, match="no neighbour"):
        noise_of([1.0])


def test_gains_are_those_of_the_kernels_cost():
    generator = np.random.default_rng(9)
    points = generator.normal(size=(2, 9))
    similarities = np.exp(-((points[:, :, np.newaxis] - points[:, np.newaxis]) ** 2))

    def cost(block):
        return np.trace(block) - block.sum() / len(block)

    for matrix, gained in zip(similarities, changes._gains(similarities), strict=True):
        expected = max(
            cost(matrix) - cost(matrix[:at, :at]) - cost(matrix[at:, at:]) for at in range(3, 9 - 3 + 1)
        )
        assert gained == pytest.approx(expected)


def test_the_interval_of_a_step_covers_it():
    generator = np.random.default_rng(10)
    covered = 0
    for _ in range(300):
        before, after = generator.standard_t(3, size=12), 2 + generator.standard_t(3, size=9)
        low, high = changes._Step(before, after, 1.0, 1.0).interval()
        covered += low < 2 < high
    assert covered / 300 == pytest.approx(0.95, abs=0.03)


def test_too_few_points_have_no_interval():
    assert changes._Step(np.zeros(2), np.ones(2), 1.0, 1.0).interval() is None


def test_exact_values_change_wherever_they_differ():
    values = [100.0, 100.0, 100.05, 101.0, 101.0, 99.0]
    found = exact_changes(values, least_effect=0.001)
    assert [(change.index, change.points) for change in found] == [(3, (3, 2)), (5, (2, 1))]
    assert found[0].ratio == pytest.approx(101 / 100.05)
    assert all(change.confirmed for change in found)
    assert exact_changes([], least_effect=0.001) == exact_changes([1.0], least_effect=0.001) == []
