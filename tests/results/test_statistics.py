from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from assay.results.statistics import (
    interquartile_range,
    median,
    median_interval,
    ratio_intervals,
    ratio_of_medians,
    round_medians,
)


def test_median_and_range():
    assert median([3.0, 1.0, 2.0, 10.0]) == 2.5
    assert interquartile_range([0.0, 1.0, 2.0, 3.0, 4.0]) == 2.0
    assert round_medians([(1.0, 2.0, 9.0), (5.0,)]) == [2.0, 5.0]


@pytest.mark.parametrize("function", [median, interquartile_range])
def test_nothing_has_no_statistics(function):
    with pytest.raises(ValueError, match="no values"):
        function([])


def test_ratio_is_the_ratio_of_medians_and_lies_in_its_interval():
    ratio = ratio_of_medians([2.0, 2.2, 1.8, 2.1, 1.9], [1.0, 1.1, 0.9, 1.05, 0.95])
    assert ratio.value == pytest.approx(2.0)
    assert ratio.interval is not None
    low, high = ratio.interval
    assert low <= ratio.value <= high


def test_rounds_that_slow_both_engines_alike_do_not_widen_the_interval():
    drift = np.array([1.0, 1.5, 0.8, 1.2, 2.0])
    paired = ratio_of_medians(list(2 * drift), list(drift))
    assert paired.interval == pytest.approx((2.0, 2.0))
    unpaired = ratio_of_medians(list(2 * drift), list(drift[:4]))
    assert unpaired.interval is not None
    assert unpaired.interval[1] - unpaired.interval[0] > 0.1


def test_two_rounds_have_no_interval():
    assert ratio_of_medians([1.0, 2.0], [1.0, 1.0]).interval is None
    assert median_interval([1.0, 2.0]) is None


def test_equal_rounds_have_a_point_for_an_interval():
    assert median_interval([5.0, 5.0, 5.0]) == (5.0, 5.0)


@pytest.mark.parametrize("count", [3, 4, 5, 7, 8, 12])
def test_intervals_are_those_of_the_bootstrap(count):
    """SciPy's percentile bootstrap draws at random what is enumerated here."""
    generator = np.random.default_rng(count)
    first, second = generator.lognormal(0, 0.2, (2, count))
    options = {"n_resamples": 20_000, "vectorized": True, "method": "percentile", "rng": 1}
    expected = bootstrap((first,), np.median, **options).confidence_interval
    assert median_interval(list(first)) == pytest.approx(tuple(expected), rel=0.03)

    def quotient(a, b, axis):
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    expected = bootstrap((first, second), quotient, paired=True, **options).confidence_interval
    found = ratio_of_medians(list(first), list(second)).interval
    assert found == pytest.approx(tuple(expected), rel=0.03)


def test_many_intervals_at_once_are_those_of_each():
    generator = np.random.default_rng(1)
    shapes = [(5, 5), (3, 3), (5, 4), (2, 5), (9, 9), (5, 5), (1, 1)]
    pairs = [tuple(list(generator.lognormal(0, 0.1, count)) for count in shape) for shape in shapes]
    expected = [ratio_of_medians(above, below).interval for above, below in pairs]
    assert ratio_intervals(pairs) == expected
    assert [interval is None for interval in expected] == [min(shape) < 3 for shape in shapes]
    assert ratio_intervals([]) == []


def test_the_same_rounds_give_the_same_interval():
    values = [1.0, 1.3, 1.1, 1.7, 1.2, 1.4, 1.6, 1.5, 1.1]
    assert median_interval(values) == median_interval(values)


def test_a_denominator_of_zero_is_refused():
    with pytest.raises(ValueError, match="positive"):
        ratio_of_medians([1.0], [0.0])


@pytest.mark.slow
def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says():
    generator = np.random.default_rng(7)
    hits, trials = 0, 100
    for _ in range(trials):
        shared = generator.lognormal(0, 0.1, 9)
        first = 1.5 * shared * generator.lognormal(0, 0.03, 9)
        second = shared * generator.lognormal(0, 0.03, 9)
        interval = ratio_of_medians(list(first), list(second)).interval
        assert interval is not None
        hits += interval[0] <= 1.5 <= interval[1]
    assert hits >= 85
