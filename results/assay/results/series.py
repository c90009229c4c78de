"""Series of measurements over time: the same benchmark on the same machine, commit after commit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from assay.results.record import HIGHER_IS_BETTER, OF_ARTIFACTS, Method, Metric, Record, Unit

__all__ = ["Exclusion", "Filter", "Point", "Series", "SeriesKey", "method_of", "parse_time"]


@dataclass(frozen=True, kw_only=True, order=True)
class SeriesKey:
    """What two records share when one continues the other.

    ``sizes`` are pairs of a symbolic dimension and its size, sorted; ``machine`` is ``Machine.identity()``.
    ``method`` is the record's, and ``bench`` for metrics that are the same whoever reads them.
    """

    model: str
    sizes: tuple[tuple[str, int], ...]
    target: str
    scheme: str
    profile: str
    engine: str
    threads: int
    metric: Metric
    machine: str
    method: Method = "bench"

    @classmethod
    def of(cls, record: Record) -> SeriesKey:
        """The key of the series that ``record`` belongs to."""
        return cls(
            model=record.model,
            sizes=tuple(sorted(record.sizes.items())),
            target=record.target,
            scheme=record.scheme,
            profile=record.profile,
            engine=record.engine,
            threads=record.threads,
            metric=record.metric,
            machine=record.machine.identity(),
            method=method_of(record),
        )

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better."""
        return self.metric in HIGHER_IS_BETTER

    def benchmark(self) -> str:
        """Everything but metric and machine as one line, such as ``resnet18 batch=1 x86-64-v3 f32``."""
        sizes = [f"{name}={size}" for name, size in self.sizes]
        counted = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        profile = [] if self.profile == "release" else [self.profile]
        method = [] if self.method == "bench" else [f"by {self.method}"]
        return " ".join(
            [self.model, *sizes, self.target, self.scheme, *profile, self.engine, counted, *method]
        )


def method_of(record: Record) -> Method:
    """The method that the series of ``record`` is of."""
    return "bench" if record.metric in OF_ARTIFACTS else record.method


@dataclass(frozen=True, kw_only=True)
class Point:
    """One record in a series.

    ``value`` and its 95% ``interval`` (None with fewer than three rounds) are in the series' unit. ``time``
    is when it was measured; ``commit_time`` is the committer's. ``key`` is the record's key in the store,
    ``medians`` are those of its rounds.
    """

    commit: str | None
    commit_time: datetime | None
    branch: str | None
    dirty: bool | None
    time: datetime
    value: float
    interval: tuple[float, float] | None
    rounds: int
    run_id: str
    artifact: str
    key: str
    medians: tuple[float, ...] = ()

    @property
    def at(self) -> datetime:
        """Where the point stands in time: at its commit, or when it was measured if that is not known."""
        return self.commit_time or self.time


@dataclass(frozen=True, kw_only=True)
class Series:
    """The points of one benchmark, in the order of ``Point.at``, then of the time of measurement."""

    key: SeriesKey
    unit: Unit
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which records to take: an empty tuple, or None, takes all.

    ``since`` (from then on) and ``until`` (before then) compare with ``Point.at``.
    """

    models: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    metrics: tuple[Metric, ...] = ()
    machines: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    methods: tuple[Method, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True, order=True)
class Exclusion:
    """Something that a store left out: the file, and what in it, and why, as a phrase."""

    file: str
    reason: str
    record: int | None = None

    def __str__(self) -> str:
        place = self.file if self.record is None else f"{self.file}, record {self.record}"
        return f"{place}: {self.reason}"


def parse_time(text: str) -> datetime:
    """A time of ISO 8601 as UTC; one without an offset is taken as UTC. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
