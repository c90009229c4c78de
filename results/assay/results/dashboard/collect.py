"""From the series of a store to the entries of the dashboard: peers beside ours, ratios run by run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import msgspec

from assay.results.dashboard.measured import known_builds
from assay.results.dashboard.model import OURS, Build, Change, Configuration, Entry, Line, Machine, Point
from assay.results.history import Shift
from assay.results.record import OF_ARTIFACTS, Record
from assay.results.series import Filter, Series, SeriesKey
from assay.results.series import Point as Measured
from assay.results.statistics import Interval, ratio_intervals
from assay.results.store import Store
from assay.results.store_rows import content_key

__all__ = ["collect_entries", "entries_of_builds"]

# PostgreSQL and SQLite both take some tens of thousands of parameters.
_RUNS_AT_ONCE = 1_000

_Beside = tuple[object, ...]
_Intervals = Mapping[tuple[str, str], Interval | None]


@dataclass(kw_only=True)
class _Group:
    """The series of one configuration, by metric and engine."""

    key: SeriesKey
    found: dict[tuple[str, str], Series] = field(default_factory=dict)


def collect_entries(
    store: Store,
    *,
    chosen: Filter | None = None,
    builds: Iterable[Build] = (),
    shifts: Iterable[Shift] = (),
    commits: Collection[str] = (),
) -> list[Entry]:
    """Every configuration of ours in ``store``, with peers that ran in the same runs, sorted by name.

    ``shifts`` are the change points of our series. ``builds`` say more of configurations; those that no
    figure is of get an entry without lines. Where there are ``commits``, points of others, of other branches,
    are left out. Sizes and errors that records have complete ``builds``, and stand beside the figures of
    every method.
    """
    series = _of_history(store.series(chosen), set(commits))
    groups = _groups(series)
    peers = _peer_points(series)
    newest = _newest_records(store, groups)
    machines = {
        name: Machine(name=name, cpu=machine.cpu, cpus=machine.cpus)
        for name, machine in store.machines().items()
    }
    known = known_builds(series, newest, builds)
    intervals = _intervals(groups, peers)
    changes: dict[SeriesKey, dict[str, Change]] = defaultdict(dict)
    for shift in shifts:
        changes[shift.key][shift.runs[1]] = Change(index=0, ratio=shift.ratio, confirmed=shift.confirmed)
    entries = []
    named = set()
    for group in groups:
        configuration = _configuration(group, newest, machines)
        name = (configuration.model, group.key.target, group.key.scheme, group.key.profile)
        named.add(name)
        entries.append(_entry(group, configuration, known.get(name), peers, intervals, changes))
    alone = [build for name, build in known.items() if name not in named]
    return sorted([*entries, *entries_of_builds(alone)], key=_order)


def _groups(series: Iterable[Series]) -> list[_Group]:
    """The series of each configuration of ours and method, with what is the same for all of its methods."""
    groups: dict[tuple[object, ...], dict[str, _Group]] = defaultdict(dict)
    for each in series:
        of_method = groups[_configured(each.key)]
        group = of_method.setdefault(each.key.method, _Group(key=each.key))
        group.found[each.key.metric, each.key.engine] = each
    found = []
    for of_method in groups.values():
        of_artifacts = {
            name: each
            for group in of_method.values()
            for name, each in group.found.items()
            if name[0] in OF_ARTIFACTS
        }
        timed = [group for group in of_method.values() if group.found.keys() - of_artifacts.keys()]
        for group in timed or of_method.values():
            group.found |= of_artifacts
            if any(engine == OURS for _, engine in group.found):
                found.append(group)
    return found


def entries_of_builds(builds: Iterable[Build]) -> list[Entry]:
    """Entries without figures, of builds that nobody measured, sorted by name."""
    return sorted(map(_unmeasured, builds), key=_order)


def _of_history(series: Sequence[Series], commits: AbstractSet[str]) -> list[Series]:
    """The series without points of other commits; points of no known commit stay."""
    if not commits:
        return list(series)
    kept = [
        replace(each, points=tuple(p for p in each.points if p.commit is None or p.commit in commits))
        for each in series
    ]
    return [each for each in kept if each.points]


def _order(entry: Entry) -> tuple[object, ...]:
    c = entry.configuration
    return (c.model, c.sizes, c.target, c.scheme, c.profile, c.threads, c.machine.name, c.method)


def _configured(key: SeriesKey) -> tuple[object, ...]:
    """What all lines of one entry share."""
    return (key.model, key.sizes, key.target, key.scheme, key.profile, key.threads, key.machine)


def _beside(key: SeriesKey, run: str) -> _Beside:
    """What a peer's figure shares with ours of the same run, whatever profile it is recorded with."""
    of = (run, key.machine, key.method, key.model, key.sizes)
    return (*of, key.target, key.scheme, key.threads, key.metric)


def _peer_points(series: Sequence[Series]) -> Mapping[_Beside, dict[str, dict[str, Measured]]]:
    """The figures of peers: by run and engine, and by the artifact beside which they were recorded."""
    found: dict[_Beside, dict[str, dict[str, Measured]]] = defaultdict(lambda: defaultdict(dict))
    for each in series:
        if each.key.engine != OURS:
            for point in each.points:
                found[_beside(each.key, point.run_id)][each.key.engine][point.artifact] = point
    return found


def _newest_records(store: Store, groups: Iterable[_Group]) -> Mapping[str, Record]:
    """The records of the runs that are the newest of a series of ours, by content key."""
    keys = {
        each.points[-1].run_id
        for group in groups
        for (_, engine), each in group.found.items()
        if engine == OURS
    }
    runs = sorted(keys)
    records: dict[str, Record] = {}
    for start in range(0, len(runs), _RUNS_AT_ONCE):
        for record in store.records(Filter(runs=tuple(runs[start : start + _RUNS_AT_ONCE]))):
            records[content_key(record)] = record
    return records


def _configuration(
    group: _Group, newest: Mapping[str, Record], machines: Mapping[str, Machine]
) -> Configuration:
    key = group.key
    last = next(each.points[-1] for (_, engine), each in group.found.items() if engine == OURS)
    record = newest.get(last.key)
    return Configuration(
        model=key.model,
        weights=record.weights if record else "trained",
        sizes=", ".join(f"{name}={size}" for name, size in key.sizes),
        target=key.target,
        scheme=key.scheme,
        profile=key.profile,
        threads=key.threads,
        machine=machines.get(key.machine, Machine(name=key.machine)),
        method=_method(group),
    )


def _method(group: _Group) -> str:
    """The method of what was timed."""
    return next((each.key.method for each in group.found.values() if each.key.method != "bench"), "bench")


def _entry(
    group: _Group,
    configuration: Configuration,
    build: Build | None,
    peers: Mapping[_Beside, dict[str, dict[str, Measured]]],
    intervals: _Intervals,
    changes: Mapping[SeriesKey, Mapping[str, Change]],
) -> Entry:
    lines, ratios = [], []
    for (metric, engine), series in sorted(group.found.items()):
        if engine != OURS:
            continue
        higher = series.key.higher_is_better
        steps = changes.get(series.key, {})
        found = tuple(
            msgspec.structs.replace(steps[point.key], index=index)
            for index, point in enumerate(series.points)
            if point.key in steps
        )
        points = tuple(_point(point) for point in series.points)
        lines.append(
            Line(metric=metric, engine=OURS, unit=series.unit, higher=higher, points=points, changes=found)
        )
        for peer, pairs in _pairs(series, peers).items():
            theirs = tuple(_point(other) for _, other in pairs)
            lines.append(Line(metric=metric, engine=peer, unit=series.unit, higher=higher, points=theirs))
            quotients = tuple(
                _ratio(ours, other, higher, intervals[ours.key, other.key]) for ours, other in pairs
            )
            ratios.append(Line(metric=metric, engine=peer, unit="ratio", higher=True, points=quotients))
    return Entry(configuration=configuration, lines=tuple(lines), ratios=tuple(ratios), build=build)


def _pairs(
    series: Series, peers: Mapping[_Beside, dict[str, dict[str, Measured]]]
) -> dict[str, list[tuple[Measured, Measured]]]:
    """For each peer, figures of ours and the peer's of the same run, oldest first.

    Of several profiles of a model, the peer takes turns with all and is recorded with one.
    """
    found: dict[str, list[tuple[Measured, Measured]]] = {}
    for point in series.points:
        for engine, by_artifact in peers.get(_beside(series.key, point.run_id), {}).items():
            other = by_artifact.get(point.artifact) or next(iter(by_artifact.values()))
            found.setdefault(engine, []).append((point, other))
    return found


def _point(point: Measured) -> Point:
    low, high = point.interval or (None, None)
    return Point(
        commit=point.commit,
        time=_text(point),
        value=point.value,
        run=point.run_id,
        low=low,
        high=high,
        dirty=bool(point.dirty),
    )


def _text(point: Measured) -> str:
    return point.at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _intervals(
    groups: Iterable[_Group], peers: Mapping[_Beside, dict[str, dict[str, Measured]]]
) -> _Intervals:
    """The intervals of all ratios to peers, by the keys of both records."""
    rounds: dict[tuple[str, str], tuple[Sequence[float], Sequence[float]]] = {}
    for group in groups:
        for (_, engine), series in group.found.items():
            if engine != OURS:
                continue
            for pairs in _pairs(series, peers).values():
                for ours, other in pairs:
                    both = other.medians, ours.medians
                    above, below = reversed(both) if series.key.higher_is_better else both
                    rounds[ours.key, other.key] = above, below
    return dict(zip(rounds, ratio_intervals(list(rounds.values())), strict=True))


def _ratio(ours: Measured, other: Measured, higher: bool, interval: Interval | None) -> Point:
    """How many times better ours is."""
    value = ours.value / other.value if higher else other.value / ours.value
    low, high = interval or (None, None)
    return Point(
        commit=ours.commit,
        time=_text(ours),
        value=value,
        run=ours.run_id,
        low=low,
        high=high,
        dirty=bool(ours.dirty),
    )


def _unmeasured(build: Build) -> Entry:
    configuration = Configuration(
        model=build.model,
        weights=build.weights,
        sizes="",
        target=build.target,
        scheme=build.scheme,
        profile=build.profile,
        threads=0,
        machine=Machine(),
    )
    return Entry(configuration=configuration, lines=(), build=build)
