"""Decide for each benchmark whether it changed, from pairs of process runs, as rounds are added.

The unit is the process run: samples within one share its memory layout and its luck (Georges, Buytaert and
Eeckhout, OOPSLA 2007; Kalibera and Jones, ISMM 2013). A round is a pair of runs, of base and head, one after
the other in an order drawn at random, and enters by the logarithm of head over base. Were both the same
code, another draw would have turned its sign around, so that all signs are as tosses of a coin whatever the
machine did meanwhile: Fisher's randomization argument (The Design of Experiments, 1935). The signed-rank
test on these signs is exact for noise of any shape, with outliers, and correlated in time.

A change is claimed where the interval excludes none, at a level corrected for looking several times
(``spending``) and for many benchmarks, and where the estimate is as large as it must be. The correction for
many is Holm's (Scandinavian Journal of Statistics 6, 1979), which lets benchmarks depend on each other in
any way, as those do that share a process; carried from look to look as by Maurer and Bretz (Statistics in
Biopharmaceutical Research 5, 2013): each benchmark found to differ leaves its part of the error to the rest.
``unchanged`` is no absence of evidence: the interval must lie within the threshold on both sides
(Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from assay.ci.gate.signed_rank import critical_count, tail, walsh_averages
from assay.ci.gate.spending import spend
from assay.errors import UsageError

__all__ = ["Decision", "Series", "Settings", "Verdict", "decide"]

Array = npt.NDArray[np.float64]
# Walsh averages at once: 160 MB.
_MOST_AVERAGES = 20_000_000


class Verdict(StrEnum):
    """What the gate says of one benchmark."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    UNCHANGED = "unchanged"
    INCONCLUSIVE = "inconclusive"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Series:
    """One benchmark, measured: in round i, ``base[i]`` and ``head[i]`` seconds (or another positive unit).

    Each value stands for one fresh process, by the median of its samples. The two processes of a round ran
    one after the other, in an order drawn at random: the test rests on that draw. Less is better. A side
    without values does not have the benchmark. ``failure`` says why no more can be measured, such as a
    crash.
    """

    base: tuple[float, ...] = ()
    head: tuple[float, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the gate is to find, and how sure it is to be.

    ``threshold``: the smallest slowdown that matters, as a fraction. ``confidence``: 1 minus the chance that
    a gate run on identical code finds any change in any benchmark. ``equivalence_confidence``: 1 minus the
    chance that one benchmark that did change by ``threshold`` is called unchanged. ``least_effect``: the
    part of ``threshold`` that the estimate of a change must reach. ``widening``: how many times wider
    intervals become, 1 on a fit machine.

    Looks at the data are taken after ``first_look`` rounds, and from then on each ``growth`` times later,
    the last one after ``max_rounds``. ``jump``: a value that many times its own side's median, or less than
    the median over it, is no time but a clock that jumped.

    Raises UsageError for values that make no sense.
    """

    threshold: float = 0.03
    confidence: float = 0.99
    equivalence_confidence: float = 0.95
    least_effect: float = 0.75
    widening: float = 1.0
    first_look: int = 10
    max_rounds: int = 60
    growth: float = 1.25
    jump: float = 100.0

    def __post_init__(self) -> None:
        for name in ("confidence", "equivalence_confidence"):
            if not 0.5 <= getattr(self, name) < 1:
                raise UsageError(f"The gate's {name.replace('_', ' ')} must be at least 0.5 and below 1.")
        if not 0 < self.threshold <= 1:
            raise UsageError("The gate's threshold must be above 0% and at most 100%.")
        if not 0 < self.least_effect <= 1:
            raise UsageError("The least effect is a part of the threshold: above 0, at most 1.")
        if not 1 <= self.widening < math.inf:
            raise UsageError("Intervals can only be widened: by a factor of at least 1.")
        if not 1 <= self.first_look <= self.max_rounds:
            raise UsageError("The gate's first look must come after the first round, and not after the last.")
        if not self.growth > 1 or not self.jump > 1:
            raise UsageError("The gate's growth and jump are factors above 1.")

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of rounds after which the data are looked at, ascending, the last one ``max_rounds``."""
        looks = [self.first_look]
        while looks[-1] < self.max_rounds:
            looks.append(min(self.max_rounds, max(looks[-1] + 1, round(looks[-1] * self.growth))))
        return tuple(looks)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate says of one benchmark, and why.

    ``finished``: more rounds would change nothing. ``rounds`` are those that the verdict rests on.
    ``effect``: the estimate of head over base, 1.03 for 3% slower; None where nothing can be estimated.
    ``interval``: its interval at ``confidence``, which is that of the whole gate run, and for ``unchanged``
    that of this benchmark alone; None where there are too few rounds for one. ``reason``: one sentence.
    """

    verdict: Verdict
    finished: bool
    rounds: int = 0
    effect: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    reason: str


def decide(
    series: Mapping[str, Series], settings: Settings | None = None, *, spent: bool = False
) -> dict[str, Decision]:
    """The decision on each benchmark of a gate run, in the order of ``series``.

    All rounds measured so far go in, and the looks due by then are taken one after the other: the same data
    give the same decisions, and rounds after a verdict do not change it. A benchmark whose decision is not
    ``finished`` needs more rounds. With ``spent``, no more will come: a last look at all rounds spends what
    is left of the error. That is right where time ended them, and not what they said. ``settings`` and the
    set of benchmarks must stay the same during a gate run.
    """
    settings = settings or Settings()
    decisions = {name: fault for name, one in series.items() if (fault := _fault(one, settings)) is not None}
    ratios = {
        name: np.log(np.asarray(one.head, np.float64)) - np.log(np.asarray(one.base, np.float64))
        for name, one in series.items()
        if name not in decisions
    }
    decisions |= _Looks(ratios, total=len(series), settings=settings).decide(spent=spent)
    return {name: decisions[name] for name in series}


def _fault(series: Series, settings: Settings) -> Decision | None:
    """Why nothing can be decided, if so: a benchmark that is missing or broken."""

    def broken(reason: str) -> Decision:
        rounds = min(len(series.base), len(series.head))
        return Decision(verdict=Verdict.BROKEN, finished=True, rounds=rounds, reason=reason)

    if series.failure is not None:
        return broken(series.failure)
    lacking = [side for side, values in (("base", series.base), ("head", series.head)) if not values]
    if lacking:
        reason = f"The {lacking[0]} lacks it." if len(lacking) == 1 else "It was measured on neither side."
        return Decision(verdict=Verdict.MISSING, finished=True, reason=reason)
    for side, values in (("base", series.base), ("head", series.head)):
        array = np.asarray(values, np.float64)
        bad = ~(np.isfinite(array) & (array > 0))
        if bad.any():
            first = int(np.argmax(bad))
            return broken(f"The {side} took {values[first]:g} in round {first + 1}, which is no time.")
        middle = float(np.median(array))
        jumped = np.abs(np.log(array / middle)) > math.log(settings.jump)
        if jumped.any():
            first = int(np.argmax(jumped))
            return broken(
                f"The {side} took {values[first]:g} in round {first + 1}, {middle:g} in most: a clock jumped."
            )
    if len(series.base) != len(series.head):
        return broken(f"The base has {len(series.base)} process runs, and the head {len(series.head)}.")
    return None


@dataclass(frozen=True, kw_only=True)
class _Look:
    """Evidence at one look, one row a benchmark, all in logarithms of head over base.

    ``slower`` and ``faster`` are one-sided p-values of the change. ``low`` and ``high`` bound the interval
    of equivalence, infinite where there is none.
    """

    estimate: Array
    slower: Array
    faster: Array
    low: Array
    high: Array


class _Looks:
    """The looks at one gate run's data: ``ratios`` are log(head / base) round by round, by benchmark."""

    def __init__(self, ratios: Mapping[str, Array], *, total: int, settings: Settings) -> None:
        self._settings = settings
        self._names = list(ratios)
        self._ratios = list(ratios.values())
        self._total = total
        # One side's: half of the error is for claims of a slowdown, half for claims of the contrary.
        self._change_level = (1 - settings.confidence) / 2
        self._same_level = (1 - settings.equivalence_confidence) / 2
        self._change_parts = spend(settings.looks, self._change_level / max(total, 1))
        self._same_parts = spend(settings.looks, self._same_level)
        self._differs: set[int] = set()

    def decide(self, *, spent: bool) -> dict[str, Decision]:
        """Take every look that the data allow, and with ``spent`` one more at all rounds."""
        found: dict[int, Decision] = {}
        for index, rounds in enumerate(self._settings.looks):
            rows = [row for row in self._open(found) if len(self._ratios[row]) >= rounds]
            if not rows:
                break
            found.update(self._look(rounds, self._change_parts[index], self._same_parts[index], rows))
        if spent:
            for rounds in sorted({len(self._ratios[row]) for row in self._open(found)}):
                rows = [row for row in self._open(found) if len(self._ratios[row]) == rounds]
                taken = sum(look <= rounds for look in self._settings.looks)
                left = [1 - sum(parts[:taken]) for parts in (self._change_parts, self._same_parts)]
                found.update(self._look(rounds, left[0], left[1], rows, last=True))
        for row in self._open(found):
            if row not in found:
                ratios = self._ratios[row]
                effect = math.exp(float(np.median(walsh_averages(ratios[None, :]))))
                found[row] = _too_few(len(ratios), effect)
        return {self._names[row]: found[row] for row in range(len(self._names))}

    def _open(self, found: Mapping[int, Decision]) -> list[int]:
        return [row for row in range(len(self._names)) if not (row in found and found[row].finished)]

    def _look(
        self, rounds: int, change_part: float, same_part: float, rows: list[int], *, last: bool = False
    ) -> Iterator[tuple[int, Decision]]:
        """Decisions on ``rows`` after ``rounds``, by parts of the error for changes and for equivalence."""
        values = np.stack([self._ratios[row][:rounds] for row in rows])
        same_count = critical_count(rounds, self._same_level * same_part)
        look = _evidence(values, same_count, self._settings.widening)
        level = self._step_down(change_part, rows, np.minimum(look.slower, look.faster))
        low, high = _interval(values, look.estimate, critical_count(rounds, level), self._settings.widening)
        margin = math.log1p(self._settings.threshold)
        least = margin * self._settings.least_effect
        within = (look.low > -margin) & (look.high < margin)
        slower = (look.slower <= level) & (look.estimate >= least)
        faster = (look.faster <= level) & (look.estimate <= -least)
        last = last or rounds == self._settings.max_rounds
        for place, row in enumerate(rows):
            effect = math.exp(look.estimate[place])
            if within[place]:
                yield row, self._unchanged(rounds, effect, (look.low[place], look.high[place]))
                continue
            changed = Verdict.REGRESSION if slower[place] else Verdict.IMPROVEMENT
            verdict = changed if slower[place] or faster[place] else Verdict.INCONCLUSIVE
            yield row, self._claim(verdict, rounds, effect, (low[place], high[place]), last=last)

    def _step_down(self, change_part: float, rows: list[int], p_values: Array) -> float:
        """Holm's steps at one look; gives the level of one side that they end with."""
        part = self._change_level * change_part
        waiting = sorted((p, row) for p, row in zip(p_values.tolist(), rows, strict=True))
        for p_value, row in waiting:
            if row in self._differs:
                continue
            if p_value > part / (self._total - len(self._differs)):
                break
            self._differs.add(row)
        return part / max(1, self._total - len(self._differs))

    def _unchanged(self, rounds: int, effect: float, bounds: tuple[float, float]) -> Decision:
        low, high = math.exp(bounds[0]), math.exp(bounds[1])
        return Decision(
            verdict=Verdict.UNCHANGED,
            finished=True,
            rounds=rounds,
            effect=effect,
            interval=(low, high),
            confidence=self._settings.equivalence_confidence,
            reason=f"{_percent(low)} to {_percent(high)}: within {self._settings.threshold:.3g} of none.",
        )

    def _claim(
        self, verdict: Verdict, rounds: int, effect: float, bounds: tuple[float, float], *, last: bool
    ) -> Decision:
        interval = (math.exp(bounds[0]), math.exp(bounds[1])) if math.isfinite(bounds[0]) else None
        if interval is None:
            reason = f"{rounds} rounds are too few for an interval."
        elif verdict is Verdict.INCONCLUSIVE:
            reason = f"{_percent(interval[0])} to {_percent(interval[1])} after {rounds} rounds: neither."
        else:
            way = "slower" if verdict is Verdict.REGRESSION else "faster"
            reason = f"{abs(effect - 1):.1%} {way} ({_percent(interval[0])} to {_percent(interval[1])})."
        return Decision(
            verdict=verdict,
            finished=last or verdict is not Verdict.INCONCLUSIVE,
            rounds=rounds,
            effect=effect,
            interval=interval,
            confidence=self._settings.confidence if interval else None,
            reason=reason,
        )


def _evidence(values: Array, same_count: int, widening: float) -> _Look:
    """Evidence of each row of ``values``, (benchmarks, rounds); ``same_count`` is equivalence's critical
    one.
    """
    rounds = values.shape[1]
    parts = []
    for chunk in _chunks(values):
        averages = walsh_averages(chunk)
        size = averages.shape[1]
        kept = [same_count, size - 1 - same_count] if same_count >= 0 else []
        middle = [(size - 1) // 2, size // 2]
        averages.partition(sorted({*middle, *kept}), axis=1)
        estimate = averages[:, middle].mean(axis=1)
        # A widened interval excludes no change where the interval excludes this point.
        point = (estimate * (1 - 1 / widening))[:, None]
        below, above = (averages <= point).sum(axis=1), (averages >= point).sum(axis=1)
        low, high = _bounds(averages, estimate, same_count, widening)
        parts.append(np.stack([estimate, tail(rounds)[below], tail(rounds)[above], low, high]))
    estimate, slower, faster, low, high = np.concatenate(parts, axis=1)
    return _Look(estimate=estimate, slower=slower, faster=faster, low=low, high=high)


def _interval(values: Array, estimate: Array, count: int, widening: float) -> tuple[Array, Array]:
    """Intervals of each row of ``values`` by the critical ``count``, infinite where that is negative."""
    parts, start = [], 0
    for chunk in _chunks(values):
        averages = walsh_averages(chunk)
        if count >= 0:
            averages.partition(sorted({count, averages.shape[1] - 1 - count}), axis=1)
        stop = start + len(chunk)
        parts.append(np.stack(_bounds(averages, estimate[start:stop], count, widening)))
        start = stop
    low, high = np.concatenate(parts, axis=1)
    return low, high


def _bounds(averages: Array, estimate: Array, count: int, widening: float) -> tuple[Array, Array]:
    """Bounds from ``averages``, partitioned at ``count`` from both ends."""
    if count < 0:
        return np.full_like(estimate, -np.inf), np.full_like(estimate, np.inf)
    low, high = averages[:, count], averages[:, averages.shape[1] - 1 - count]
    return estimate - widening * (estimate - low), estimate + widening * (high - estimate)


def _chunks(values: Array) -> Iterator[Array]:
    rounds = values.shape[1]
    rows = max(1, _MOST_AVERAGES // (rounds * (rounds + 1) // 2))
    return (values[start : start + rows] for start in range(0, len(values), rows))


def _too_few(rounds: int, effect: float) -> Decision:
    return Decision(
        verdict=Verdict.INCONCLUSIVE,
        finished=False,
        rounds=rounds,
        effect=effect,
        reason=f"{rounds} rounds are too few to look at.",
    )


def _percent(ratio: float) -> str:
    return f"{ratio - 1:+.1%}"
