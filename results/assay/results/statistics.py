"""Statistics of measurements in rounds.

The independent unit is the round, a fresh process, and not the sample: samples of one process share its
memory layout and its luck, so that intervals over samples are far too narrow. Each round counts with its
median.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Ratio",
    "interquartile_range",
    "median",
    "median_interval",
    "ratio_intervals",
    "ratio_of_medians",
    "round_medians",
]

# With fewer rounds a bootstrap only repeats what it was given.
_LEAST_ROUNDS = 3
# Of so few rounds every resample can be looked at: 1716 of seven.
_MOST_ENUMERATED = 7
_RESAMPLES = 1_999
_TAIL = 0.025
# Numbers that are held at once: 64 MiB.
_AT_ONCE = 1 << 23

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times ``numerator`` is ``denominator``; ``interval`` is its 95% interval, if there is one."""

    value: float
    interval: Interval | None


def median(values: Sequence[float]) -> float:
    """The median. Raises ValueError when there are no values."""
    if not values:
        raise ValueError("no values have no median")
    return float(np.median(np.asarray(values, np.float64)))


def interquartile_range(values: Sequence[float]) -> float:
    """The difference between the third and the first quartile, in the unit of ``values``."""
    if not values:
        raise ValueError("no values have no interquartile range")
    low, high = np.percentile(np.asarray(values, np.float64), [25, 75])
    return float(high - low)


def round_medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    """The median of each round."""
    return [median(samples) for samples in rounds]


def median_interval(medians: Sequence[float]) -> Interval | None:
    """A 95% interval of the median over rounds; None with fewer than three rounds."""
    if len(medians) < _LEAST_ROUNDS:
        return None
    draws = _draws(len(medians))
    return _bounds(_resampled(np.asarray([medians], np.float64), draws.places), draws.weights)[0]


def ratio_of_medians(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """The median of ``numerator`` over that of ``denominator``, both holding one median per round.

    The interval resamples rounds. Where both have the same number of rounds they are resampled in pairs: the
    two ran one after the other in each round, and shared what the machine did then.
    Raises ValueError for no rounds, and for a denominator whose median is not positive.
    """
    below = median(denominator)
    if not below > 0:
        raise ValueError("the median of the denominator must be positive")
    (interval,) = ratio_intervals([(numerator, denominator)])
    return Ratio(value=median(numerator) / below, interval=interval)


def ratio_intervals(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> list[Interval | None]:
    """The 95% intervals that ``ratio_of_medians`` gives for pairs of positive numerators and denominators.

    Many at once take little longer than one: each is None with fewer than three rounds on a side.
    """
    found: list[Interval | None] = [None] * len(pairs)
    shapes: dict[tuple[int, int], list[int]] = {}
    for number, (above, below) in enumerate(pairs):
        if min(len(above), len(below)) >= _LEAST_ROUNDS:
            shapes.setdefault((len(above), len(below)), []).append(number)
    for (first, second), numbers in shapes.items():
        draws = _draws(first) if first == second else _random_draws(first)
        others = draws.places if first == second else _random_draws(second, stream=1).places
        together = max(1, _AT_ONCE // draws.places.size)
        for start in range(0, len(numbers), together):
            part = numbers[start : start + together]
            over = _resampled(np.asarray([pairs[number][0] for number in part], np.float64), draws.places)
            under = _resampled(np.asarray([pairs[number][1] for number in part], np.float64), others)
            for number, bounds in zip(part, _bounds(over / under, draws.weights), strict=True):
                found[number] = bounds
    return found


@dataclass(frozen=True, kw_only=True)
class _Draws:
    """Resamples: ``places`` [resamples, rounds] of what is drawn, and how likely each resample is."""

    places: npt.NDArray[np.intp]
    weights: Floats


@functools.cache
def _draws(count: int) -> _Draws:
    """Resamples of ``count`` rounds: all that there are of few, in no order, and else random ones."""
    if count > _MOST_ENUMERATED:
        return _random_draws(count)
    places = np.array(list(itertools.combinations_with_replacement(range(count), count)), np.intp)
    times = (places[:, :, np.newaxis] == np.arange(count)).sum(axis=1)
    factorials = np.array([math.factorial(number) for number in range(count + 1)], np.float64)
    # The multinomial distribution: in how many orders each can be drawn, of all that there are.
    weights = factorials[count] / factorials[times].prod(axis=1) / float(count) ** count
    return _Draws(places=places, weights=weights)


@functools.cache
def _random_draws(count: int, *, stream: int = 0) -> _Draws:
    generator = np.random.default_rng([stream, count])
    places = generator.integers(count, size=(_RESAMPLES, count), dtype=np.intp)
    return _Draws(places=places, weights=np.full(_RESAMPLES, 1 / _RESAMPLES))


def _resampled(values: Floats, places: npt.NDArray[np.intp]) -> Floats:
    """The medians [rows, resamples] of what ``places`` draws of each row of ``values`` [rows, rounds]."""
    # np.median takes three times as long for as few values.
    ranked = np.sort(values[:, places], axis=2)
    middle = ranked.shape[2] // 2
    return np.asarray((ranked[..., middle] + ranked[..., -1 - middle]) / 2)


def _bounds(values: Floats, weights: Floats) -> list[Interval]:
    """The percentile interval of each row of ``values`` [rows, resamples] (Efron, Tibshirani 1993)."""
    order = np.argsort(values, axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    passed = np.cumsum(weights[order], axis=1)
    # The bias-corrected method is undefined for the median of a handful of rounds.
    low, high = (np.argmax(passed >= part - 1e-12, axis=1) for part in (_TAIL, 1 - _TAIL))
    rows = np.arange(len(values))
    return list(zip(ranked[rows, low].tolist(), ranked[rows, high].tolist(), strict=True))
