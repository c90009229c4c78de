"""What happened to benchmarks over the commits: steps of their series, each with its commit and size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

from assay.results.changes import FEWEST_POINTS, Change, exact_changes, find_changes
from assay.results.commits import Commit
from assay.results.record import Metric, Unit
from assay.results.series import Point, Series, SeriesKey

__all__ = [
    "LEAST_EFFECT",
    "LEAST_ERROR_EFFECT",
    "LEAST_EXACT_EFFECT",
    "History",
    "Level",
    "Shift",
    "find_shifts",
    "levels_of",
]

LEAST_EFFECT = 0.01
"""The relative change that matters, where nobody says otherwise."""

LEAST_EXACT_EFFECT = 0.001
"""The same of metrics without noise, of which a smaller change can be seen, and adds up."""

LEAST_ERROR_EFFECT = 1.0
"""The same of errors: another order of a sum changes their last digits, but does not double them."""

_EXACT: frozenset[Metric] = frozenset(
    {"artifact_size", "kernels", "workspace", "weights", "error", "cosine_distance", "perplexity"}
)
# What hardly matters, in the unit of the metric. It is added to each value, so that zero has a logarithm.
_HARDLY: dict[Metric, float] = {"error": 0.02, "cosine_distance": 1e-6, "workspace": 4096.0}
_ERRORS: frozenset[Metric] = frozenset({"error", "cosine_distance"})
# Shown, and not judged: what they tell, ``error`` tells as a part of what is allowed.
_NOT_JUDGED: frozenset[Metric] = frozenset({"absolute_error", "relative_error"})
# Clocks of machines in one team differ by this much without harm.
_CLOCKS = timedelta(minutes=10)
_COMMITS_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Level:
    """What was measured at one commit: the median over its runs, whose points are beside."""

    commit: str
    value: float
    points: tuple[Point, ...]

    @property
    def at(self) -> datetime:
        """Where the commit stands in time."""
        return self.points[0].at


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A step of one benchmark: ``commit`` is the first that was measured at the new level.

    ``previous`` is the last one measured at the old level; ``unmeasured`` counts the commits between the two,
    any of which may be the cause (None where no repository tells). ``ratio`` is the level after over the one
    before (where they may be zero, both with what hardly matters added), ``interval`` its 95%
    interval; ``threshold`` the relative change that the benchmark's own noise
    explains. ``worse`` says which way is bad for the metric. One that is not ``confirmed`` rests on the last
    one or two commits alone. ``runs`` are the keys of the last record before and the first after, and
    ``besides`` says what else was different between these two.
    """

    key: SeriesKey
    unit: Unit
    commit: str
    previous: str
    unmeasured: int | None
    subject: str | None
    at: datetime
    before: float
    after: float
    ratio: float
    interval: tuple[float, float] | None
    threshold: float
    points: tuple[int, int]
    worse: bool
    confirmed: bool
    runs: tuple[str, str]
    besides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class History:
    """The steps found, newest first; how many series had enough commits, and too few; and what was told."""

    shifts: tuple[Shift, ...]
    judged: int
    short: int
    notes: tuple[str, ...]


def levels_of(series: Series, order: Mapping[str, int] | None = None) -> list[Level]:
    """A level for each commit of ``series``, in the order of the commits.

    ``order`` has the place of each commit in the history, and leaves out what is not in it; without it the
    commits' times decide. Points without a commit, or measured on changed files, belong to none.
    """
    found: dict[str, list[Point]] = {}
    for point in series.points:
        if point.commit is not None and not point.dirty and (order is None or point.commit in order):
            found.setdefault(point.commit, []).append(point)
    levels = [
        Level(commit=commit, value=median(point.value for point in points), points=tuple(points))
        for commit, points in found.items()
    ]
    if order is not None:
        levels.sort(key=lambda level: order[level.commit])
    return levels


def find_shifts(
    series: Sequence[Series],
    commits: Sequence[Commit] = (),
    *,
    least_effect: float | None = None,
    now: datetime | None = None,
) -> History:
    """The steps in ``series``, in the order of ``commits`` (oldest first) where they are given.

    ``least_effect`` is the relative change that matters, in place of ``LEAST_EFFECT`` and
    ``LEAST_EXACT_EFFECT``; errors keep ``LEAST_ERROR_EFFECT``. Absolute and relative errors are not judged.
    """
    series = [each for each in series if each.key.metric not in _NOT_JUDGED]
    order = {commit.hash: place for place, commit in enumerate(commits)}
    subjects = {commit.hash: commit.subject for commit in commits}
    all_levels = [(each, levels_of(each, order or None)) for each in series]
    judged = sum(len(levels) >= FEWEST_POINTS for _, levels in all_levels)
    shifts: list[Shift] = []
    for each, levels in all_levels:
        for change in _changes(each.key.metric, levels, least_effect, together=judged):
            last, first = levels[change.index - 1], levels[change.index]
            shifts.append(
                Shift(
                    key=each.key,
                    unit=each.unit,
                    commit=first.commit,
                    previous=last.commit,
                    unmeasured=order[first.commit] - order[last.commit] - 1 if order else None,
                    subject=subjects.get(first.commit),
                    at=first.at,
                    before=change.before - _HARDLY.get(each.key.metric, 0.0),
                    after=change.after - _HARDLY.get(each.key.metric, 0.0),
                    ratio=change.ratio,
                    interval=change.interval,
                    threshold=change.threshold,
                    points=change.points,
                    worse=(change.ratio < 1) == each.key.higher_is_better,
                    confirmed=change.confirmed,
                    runs=(last.points[-1].key, first.points[0].key),
                )
            )
    shifts.sort(key=lambda shift: (order.get(shift.commit, 0), shift.at, shift.key), reverse=True)
    return History(
        shifts=tuple(shifts),
        judged=judged,
        short=len(series) - judged,
        notes=tuple(_notes(series, order, now or datetime.now(UTC))),
    )


def _changes(
    metric: Metric, levels: Sequence[Level], least_effect: float | None, *, together: int
) -> list[Change]:
    """The changes of one series, by the rule of its metric."""
    values = [level.value + _HARDLY.get(metric, 0.0) for level in levels]
    exact = metric in _EXACT and _mostly_equal(values)
    least = least_effect or (LEAST_EXACT_EFFECT if exact else LEAST_EFFECT)
    if metric in _ERRORS:
        least = LEAST_ERROR_EFFECT
    if exact:
        return exact_changes(values, least_effect=least)
    return find_changes(values, least_effect=least, together=together)


def _mostly_equal(values: Sequence[float]) -> bool:
    """Whether neighbours are usually the same: otherwise the values have noise after all."""
    changed = sum(a != b for a, b in pairwise(values))
    return 2 * changed < len(values)


def _notes(series: Iterable[Series], order: Mapping[str, int], now: datetime) -> list[str]:
    """What was left out of the histories, and clocks that cannot be right."""
    points = [point for each in series for point in each.points]
    notes = []
    nameless = sum(point.commit is None for point in points)
    if nameless:
        notes.append(f"{_counted(nameless, 'record')} without a commit left out")
    changed = sum(point.commit is not None and bool(point.dirty) for point in points)
    if changed:
        notes.append(f"{_counted(changed, 'record')} measured on uncommitted changes left out")
    elsewhere = {
        point.commit
        for point in points
        if order and point.commit is not None and not point.dirty and point.commit not in order
    }
    if elsewhere:
        notes.append(f"{_counted(len(elsewhere), 'commit')} of other branches left out: {_short(elsewhere)}")
    early = {
        point.run_id for point in points if point.commit_time and point.time < point.commit_time - _CLOCKS
    }
    if early:
        notes.append(f"the clock jumped: measured before its commit was made: {_short(early, 24)}")
    future = {point.run_id for point in points if max(point.time, point.at) > now + _CLOCKS}
    if future:
        notes.append(f"the clock jumped: dated in the future: {_short(future, 24)}")
    if not order:
        notes += _moved_times(points)
    return notes


def _moved_times(points: Iterable[Point]) -> list[str]:
    """Commits that different records date differently."""
    times: dict[str, set[datetime]] = {}
    for point in points:
        if point.commit is not None and point.commit_time is not None:
            times.setdefault(point.commit, set()).add(point.commit_time)
    moved = Counter({commit: len(found) for commit, found in times.items() if len(found) > 1})
    return [f"dated differently by different records: {_short(moved)}"] if moved else []


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _short(names: Iterable[str], length: int = 10) -> str:
    """The first of some hashes or identifiers, cut to ``length``."""
    listed = sorted(name[:length] for name in names)
    rest = len(listed) - _COMMITS_SHOWN
    return ", ".join(listed[:_COMMITS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
