"""Where a series of measurements changes its level, judged by the series' own noise.

Candidates are the boundaries that PELT finds (Killick, Fearnhead, Eckley 2012) with the cost of a Gaussian
kernel (Arlot, Celisse, Harchaoui 2019), as ``ruptures`` has them: a bounded cost, to which an outlier is just
one point that does not fit. A candidate stays when all of these hold:

- The levels on its two sides, at least three points each, are apart by more than the noise explains. The
  noise of a single step is the third quartile of the relative changes between neighbours, plus three
  interquartile ranges, as rustc-perf takes it (or the same of the distances to the levels, where that is
  less); between two levels it shrinks as their medians' errors do, and it grows with the number of series
  that are looked at together.
- A permutation test tells the two sides apart, of at least five points each: shuffled, they have no boundary
  anywhere that gains as much by the same cost. Or every point of the shorter side is away from the other's
  level by more than the noise of a point.
- They are apart by the least effect that matters.

Sizes are Hodges and Lehmann's shift of the logarithms, with Moses' interval. Nothing assumes a normal
distribution; that runs are independent of each other is assumed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["FEWEST_POINTS", "Change", "exact_changes", "find_changes", "noise_of"]

FEWEST_POINTS = 8
"""With fewer points a series has no noise of its own to speak of."""

_LEAST_SEGMENT = 3
# Two outliers in a row make the median of three or four points one.
_LEAST_TESTED = 5
_ERROR = 0.005
_PERMUTATIONS = 999
_BATCH = 50
# The width of the kernel in standard deviations of the noise, and the price of a boundary: what lets least
# through where there is no change, of those that find steps of four standard deviations.
_KERNEL_WIDTH = 3.0
_PENALTY = 2.0
# What the noise of one series is widened against for several: a normal distribution's tail.
_TAIL = 5e-4
# Points further from a boundary say little about the size of its step.
_NEAREST = 60
_NORMAL = NormalDist()
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A step of a series: the point ``index`` is the first of the new level.

    ``before`` and ``after`` are the medians of the levels, in the unit of the values; ``ratio`` is the new
    level over the old one and ``interval`` its 95% interval (None for exact values and with too few points).
    ``threshold`` is the relative change that the noise explains. ``points`` are how many each level has. One
    that is not ``confirmed`` rests on the last one or two points alone.
    """

    index: int
    before: float
    after: float
    ratio: float
    interval: tuple[float, float] | None
    threshold: float
    points: tuple[int, int]
    confirmed: bool = True


def noise_of(values: Sequence[float]) -> float:
    """The relative change between two neighbours that noise explains: Q3 + 3 IQR of those that there are.

    Raises ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("one value has no neighbour")
    return math.expm1(_noise([np.log(np.asarray(values, np.float64))]))


def exact_changes(values: Sequence[float], *, least_effect: float) -> list[Change]:
    """The changes of values without noise, such as sizes of files: every one of at least ``least_effect``."""
    edges = [0]
    for index in range(1, len(values)):
        if abs(math.log(values[index] / values[index - 1])) >= math.log1p(least_effect):
            edges.append(index)
    edges.append(len(values))
    return [
        Change(
            index=at,
            before=values[at - 1],
            after=values[at],
            ratio=values[at] / values[at - 1],
            interval=None,
            threshold=0.0,
            points=(at - start, end - at),
        )
        for start, at, end in zip(edges, edges[1:-1], edges[2:], strict=False)
    ]


def find_changes(values: Sequence[float], *, least_effect: float, together: int = 1) -> list[Change]:
    """The changes of a noisy series of positive ``values``, oldest first.

    ``least_effect`` is the smallest relative change that matters; ``together`` is how many series are looked
    at. Fewer than ``FEWEST_POINTS`` values give none. Raises ValueError for values that are not positive.
    """
    if any(not value > 0 for value in values):
        raise ValueError("a relative change needs positive values")
    if len(values) < FEWEST_POINTS:
        return []
    logs = np.log(np.asarray(values, np.float64))
    wider = _NORMAL.inv_cdf(1 - _TAIL / max(together, 1)) / _NORMAL.inv_cdf(1 - _TAIL)
    least = math.log1p(least_effect)
    width = _kernel_width(logs, least)
    bounds = _candidates(logs, width)
    while bounds:
        parts = np.split(logs, bounds)
        noise = wider * _noise(parts)
        steps = [_Step(a, b, noise, width) for a, b in pairwise(parts)]
        doubtful = [number for number, step in enumerate(steps) if not step.holds(least)]
        if not doubtful:
            break
        # The least likely one goes, and its neighbours are judged anew, with more points.
        del bounds[max(doubtful, key=lambda number: steps[number].error)]
    parts = np.split(logs, bounds)
    noise = wider * _noise(parts)
    found = [
        _change(index, _Step(a, b, noise, width))
        for index, a, b in zip(bounds, parts, parts[1:], strict=False)
    ]
    recent = _recent(parts[-1], noise, width, least)
    if recent is not None:
        found.append(_change(len(values) - len(recent.after), recent, confirmed=False))
    return found


def _kernel_width(logs: Floats, least: float) -> float:
    sigma = float(np.median(np.abs(np.diff(logs)))) / (_NORMAL.inv_cdf(0.75) * math.sqrt(2))
    # Series that hardly vary at all have steps of their size, which do not matter.
    return _KERNEL_WIDTH * max(sigma, least / 4)


def _candidates(logs: Floats, width: float) -> list[int]:
    import ruptures

    search = ruptures.KernelCPD(kernel="rbf", params={"gamma": 1 / (2 * width**2)}, min_size=_LEAST_SEGMENT)
    return [int(bound) for bound in search.fit(logs.reshape(-1, 1)).predict(pen=_PENALTY)[:-1]]


def _gains(similarities: Floats) -> Floats:
    """What the best boundary gains by the kernel's cost: of each matrix of similarities [batch, n, n]."""
    count = similarities.shape[-1]
    sizes = np.arange(1, count)
    rows = np.cumsum(similarities.sum(axis=2), axis=1)
    # Sums over the squares from the first corner, one row and column more at a time.
    corner = 2 * np.tril(similarities).sum(axis=2) - np.diagonal(similarities, axis1=1, axis2=2)
    first = np.cumsum(corner, axis=1)
    total = first[:, -1:]
    second = total - 2 * rows[:, :-1] + first[:, :-1]
    gains = first[:, :-1] / sizes + second / (count - sizes) - total / count
    return np.asarray(gains[:, _LEAST_SEGMENT - 1 : count - _LEAST_SEGMENT].max(axis=1))


def _permutation_error(logs: Floats, width: float) -> float:
    """The probability that shuffled points gain as much by a boundary as these do: a permutation test."""
    generator = np.random.default_rng(0)
    similarities = np.exp(-(((logs[:, np.newaxis] - logs) / width) ** 2) / 2)
    gained = _gains(similarities[np.newaxis])[0]
    as_much = 0
    for start in range(0, _PERMUTATIONS, _BATCH):
        shape = (min(_BATCH, _PERMUTATIONS - start), len(logs))
        order = generator.permuted(np.broadcast_to(np.arange(len(logs)), shape), axis=1)
        shuffled = similarities[order[:, :, np.newaxis], order[:, np.newaxis, :]]
        as_much += int(np.sum(_gains(shuffled) >= gained - 1e-9))
    return (1 + as_much) / (1 + _PERMUTATIONS)


def _noise(parts: Sequence[Floats]) -> float:
    """What a change between neighbours may be, as a logarithm.

    The smaller of two estimates: from the changes between neighbours within a level, of which an outlier
    spoils two, and from the distances to the level, which a step that was not found spoils.
    """
    changes = np.abs(np.concatenate([np.diff(part) for part in parts]))
    distances = np.abs(np.concatenate([part - np.median(part) for part in parts]))
    return min(_fence(changes), math.sqrt(2) * _fence(distances))


def _fence(values: Floats) -> float:
    """Tukey's far fence."""
    if not values.size:
        return 0.0
    low, high = np.percentile(values, [25, 75])
    return float(high + 3 * (high - low))


class _Step:
    """Two neighbouring levels, as logarithms, and what the noise of a change between two points is."""

    def __init__(self, before: Floats, after: Floats, noise: float, width: float) -> None:
        self.before, self.after = before, after
        self._width = width
        near, far = before[-_NEAREST:], after[:_NEAREST]
        self._shifts = np.sort((far[:, np.newaxis] - near).ravel())
        self.shift = float(np.median(self._shifts))
        # Between single points the noise is that of two; a level's error shrinks with its points.
        self.threshold = noise * math.sqrt((1 / len(before) + 1 / len(after)) / 2)
        self._point_noise = noise * math.sqrt((1 + 1 / max(len(before), len(after))) / 2)

    @functools.cached_property
    def error(self) -> float:
        """The error of the permutation test on the points around the boundary."""
        near = np.concatenate([self.before[-_NEAREST:], self.after[:_NEAREST]])
        if len(near) < 2 * _LEAST_SEGMENT:
            return 1.0
        return _permutation_error(near, self._width)

    def apart(self) -> bool:
        """Whether every point of the shorter level is beyond the other's, all on one side."""
        shorter, longer = sorted((self.before, self.after), key=len)
        away = shorter - np.median(longer)
        return bool(np.all(away > self._point_noise) or np.all(away < -self._point_noise))

    def holds(self, least: float) -> bool:
        """Whether this is a change that matters."""
        shorter = min(len(self.before), len(self.after))
        if shorter < _LEAST_SEGMENT or abs(self.shift) < max(least, self.threshold):
            return False
        return (shorter >= _LEAST_TESTED and self.error < _ERROR) or self.apart()

    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the shift, by the ranks of the pairs' differences."""
        near, far = min(len(self.before), _NEAREST), min(len(self.after), _NEAREST)
        spread = math.sqrt(near * far * (near + far + 1) / 12)
        outer = round(near * far / 2 - _NORMAL.inv_cdf(0.975) * spread)
        if outer < 1:
            return None
        return float(self._shifts[outer - 1]), float(self._shifts[-outer])


def _recent(last: Floats, noise: float, width: float, least: float) -> _Step | None:
    """The last two points, or the last one, if they are away from the level before: not confirmed yet."""
    for count in (2, 1):
        if len(last) - count < FEWEST_POINTS - 2:
            continue
        step = _Step(last[:-count], last[-count:], noise, width)
        if abs(step.shift) >= least and step.apart():
            return step
    return None


def _change(index: int, step: _Step, *, confirmed: bool = True) -> Change:
    interval = step.interval()
    return Change(
        index=index,
        before=float(np.exp(np.median(step.before))),
        after=float(np.exp(np.median(step.after))),
        ratio=math.exp(step.shift),
        interval=None if interval is None else (math.exp(interval[0]), math.exp(interval[1])),
        threshold=math.expm1(step.threshold),
        points=(len(step.before), len(step.after)),
        confirmed=confirmed,
    )
