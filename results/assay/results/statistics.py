"""Statistics of measurements in rounds.

The independent unit is the round, a fresh process, and not the sample: samples of one process share its
memory layout and its luck, so that intervals over samples are far too narrow. Each round counts with its
median.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Ratio", "interquartile_range", "median", "median_interval", "ratio_of_medians", "round_medians"]

# With fewer rounds a bootstrap only repeats what it was given.
_LEAST_ROUNDS = 3
_RESAMPLES = 9_999
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times ``numerator`` is ``denominator``; ``interval`` is its 95% interval, if there is one."""

    value: float
    interval: tuple[float, float] | None


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


def median_interval(medians: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """A 95% interval of the median over rounds; None with fewer than three rounds."""
    if len(medians) < _LEAST_ROUNDS:
        return None
    return _bootstrap((medians,), lambda first, axis: np.median(first, axis=axis), seed)


def ratio_of_medians(numerator: Sequence[float], denominator: Sequence[float], *, seed: int = 0) -> Ratio:
    """The median of ``numerator`` over that of ``denominator``, both holding one median per round.

    The interval resamples rounds. Where both have the same number of rounds they are resampled in pairs: the
    two ran one after the other in each round, and shared what the machine did then.
    Raises ValueError for no rounds, and for a denominator whose median is not positive.
    """
    below = median(denominator)
    if not below > 0:
        raise ValueError("the median of the denominator must be positive")
    value = median(numerator) / below
    if min(len(numerator), len(denominator)) < _LEAST_ROUNDS:
        return Ratio(value=value, interval=None)

    def statistic(
        first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], axis: int
    ) -> npt.NDArray[np.float64]:
        return np.asarray(np.median(first, axis=axis) / np.median(second, axis=axis))

    paired = len(numerator) == len(denominator)
    return Ratio(value=value, interval=_bootstrap((numerator, denominator), statistic, seed, paired=paired))


def _bootstrap(
    data: tuple[Sequence[float], ...],
    statistic: Callable[..., npt.NDArray[np.float64]],
    seed: int,
    *,
    paired: bool = False,
) -> tuple[float, float]:
    from scipy.stats import bootstrap

    arrays = tuple(np.asarray(values, np.float64) for values in data)
    with warnings.catch_warnings():
        # Equal rounds (a file's size) are no reason to warn: their interval is a point.
        warnings.filterwarnings("ignore", message=".*degenerate.*")
        found = bootstrap(
            arrays,
            statistic,
            n_resamples=_RESAMPLES,
            paired=paired,
            vectorized=True,
            confidence_level=_CONFIDENCE,
            # The bias-corrected method is undefined for the median of a handful of rounds.
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
