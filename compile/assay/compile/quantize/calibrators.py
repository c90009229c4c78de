"""Ranges of activations from what calibration inputs give: min-max, percentile, entropy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Histogram", "entropy_range", "find_ranges", "histograms", "minmax_range", "percentile_range"]

_BINS = 2048
# Of the values, what the percentile calibrator keeps.
_KEPT = 0.99999
# Levels of one sign of 8 bits, and how many bins further each candidate of the entropy calibrator goes.
_LEVELS, _STRIDE = 128, 16


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Values seen: the least, the largest, and counts in equal bins between them."""

    low: float
    high: float
    counts: npt.NDArray[np.float64]

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Ends of the bins, one more than there are bins."""
        ends: npt.NDArray[np.float64] = np.linspace(self.low, self.high, len(self.counts) + 1)
        return ends


def histograms(
    first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]]
) -> dict[str, Histogram]:
    """Histograms of floating-point values by name; ``first`` and ``second`` go over the same samples.

    Raises ModelError, naming the value, where one is not finite.
    """
    ends: dict[str, tuple[float, float]] = {}
    for values in first:
        for name, array in values.items():
            if array.dtype.kind != "f" or not array.size:
                continue
            low, high = float(array.min()), float(array.max())
            if not np.isfinite(low + high):
                raise ModelError(f"The activation {name!r} is not finite on the calibration inputs.")
            least, largest = ends.get(name, (low, high))
            ends[name] = min(low, least), max(high, largest)
    counts = {name: np.zeros(_BINS) for name in ends}
    for values in second:
        for name, (low, high) in ends.items():
            if high > low and name in values:
                counts[name] += np.histogram(values[name], bins=_BINS, range=(low, high))[0]
    return {name: Histogram(low=low, high=high, counts=counts[name]) for name, (low, high) in ends.items()}


def find_ranges(found: Mapping[str, Histogram], calibrator: str) -> dict[str, tuple[float, float]]:
    """The range of each value by name; ``calibrator`` is minmax, percentile or entropy."""
    rule = {"minmax": minmax_range, "percentile": percentile_range, "entropy": entropy_range}[calibrator]
    return {name: rule(histogram) for name, histogram in found.items()}


def minmax_range(histogram: Histogram) -> tuple[float, float]:
    """From the least to the largest value."""
    return histogram.low, histogram.high


def percentile_range(histogram: Histogram) -> tuple[float, float]:
    """Without the bins at either end that together hold at most half of what may be left out."""
    total = histogram.counts.sum()
    if not total:
        return histogram.low, histogram.high
    share = np.cumsum(histogram.counts) / total
    tail = (1 - _KEPT) / 2
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    edges = histogram.edges
    return float(edges[first]), float(edges[last + 1])


def entropy_range(histogram: Histogram) -> tuple[float, float]:
    """The range whose 128 levels a sign keep most of the distribution of magnitudes.

    After Migacz, "8-bit Inference with TensorRT" (GTC 2017): of all thresholds, that of the least
    Kullback-Leibler divergence between the magnitudes, clipped at the threshold, and what quantizing leaves.
    """
    edges = histogram.edges
    largest = max(abs(histogram.low), abs(histogram.high))
    if largest == 0 or not histogram.counts.sum():
        return histogram.low, histogram.high
    middles = np.abs((edges[:-1] + edges[1:]) / 2)
    magnitudes, _ = np.histogram(middles, bins=_BINS, range=(0, largest), weights=histogram.counts)
    candidates = range(_LEVELS, _BINS + 1, _STRIDE)
    best = min(candidates, key=lambda size: (_divergence(magnitudes, size), -size))
    threshold = largest * best / _BINS
    return max(histogram.low, -threshold), min(histogram.high, threshold)


def _divergence(magnitudes: npt.NDArray[np.float64], size: int) -> float:
    """Kullback-Leibler divergence where what is above the first ``size`` bins is clipped to the last."""
    kept = magnitudes[:size]
    wanted = kept.copy()
    wanted[-1] += magnitudes[size:].sum()
    level = np.arange(size) * _LEVELS // size
    used = kept > 0
    sums = np.bincount(level, weights=kept, minlength=_LEVELS)
    places = np.bincount(level, weights=used, minlength=_LEVELS)
    given = np.where(used, (sums / np.maximum(places, 1))[level], 0)
    if not given.sum():
        return np.inf
    p, q = wanted / wanted.sum(), given / given.sum()
    some = p > 0
    # A bin that only clipping fills has no counterpart: it costs as much as the smallest that has.
    floor = q[q > 0].min()
    return float((p[some] * np.log(p[some] / np.maximum(q[some], floor * 1e-3))).sum())
