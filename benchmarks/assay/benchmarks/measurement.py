"""From what workers reported to records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from assay.benchmarks.job import Report
from assay.benchmarks.peers import Engine, ModelFiles
from assay.benchmarks.places import Place, ThisMachine
from assay.benchmarks.provenance import find_checkout
from assay.benchmarks.quality import quality_of
from assay.results.record import UNITS, Metric, Record, utc_now
from assay.results.statistics import median, median_interval, round_medians
from assay.runtime.levels import choose_level

if TYPE_CHECKING:
    from assay.models.spec import ModelSpec
    from assay.runtime.manifest import Manifest

__all__ = ["Measurement", "RecordMaker", "Subject", "make_records"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What all engines were measured on, and where.

    ``digest`` is the manifest's, ``sizes`` are the symbolic dimensions'.
    """

    run_id: str
    model: ModelSpec
    manifest: Manifest
    digest: str
    sizes: Mapping[str, int]
    threads: int
    place: Place = field(default_factory=ThisMachine)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The reports of one engine, one for each round."""

    engine: Engine
    reports: tuple[Report, ...]


def make_records(
    subject: Subject,
    measurements: Sequence[Measurement],
    *,
    files: ModelFiles | None = None,
    compile_seconds: float | None = None,
) -> list[Record]:
    """Records of every metric that was measured, engine by engine.

    Without ``files``, those that engines loaded, of latency alone: for processes that measure several things.
    """
    make = RecordMaker(subject)
    records = []
    for measured in measurements:
        engine, reports = measured.engine, measured.reports
        version = subject.place.engine_version(engine)
        records.append(
            make.record(
                engine,
                version,
                "latency",
                [report.samples for report in reports],
                # Rounds may settle on different numbers of calls; the largest bounds what a sample averages.
                calls=max(report.calls_per_sample for report in reports),
            )
        )
        if files is None:
            continue
        if engine.loads_file:
            loads = [(report.load_time,) for report in reports]
            records.append(make.record(engine, version, "load_time", loads))
        first = [(report.first_run_time,) for report in reports]
        records.append(make.record(engine, version, "first_run_time", first))
        peaks = [(float(report.peak_memory),) for report in reports if report.peak_memory is not None]
        if peaks:
            records.append(make.record(engine, version, "peak_memory", peaks))
        size = engine.size_bytes(files)
        if size is not None:
            records.append(make.record(engine, version, "artifact_size", [(float(size),)]))
        if engine.name == "assay":
            records += make.quality(engine, version)
            if compile_seconds is not None:
                records.append(make.record(engine, version, "compile_time", [(compile_seconds,)]))
    return records


class _Named(Protocol):
    """An engine, as records know it."""

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str: ...


class RecordMaker:
    """Makes records that share their subject, machine and provenance."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._machine = subject.place.fingerprint()
        self._versions = subject.place.versions()
        self._checkout = find_checkout()
        self._time = utc_now()
        self._level = choose_level(subject.manifest, cpu=subject.place.cpu)

    def record(
        self,
        engine: _Named,
        version: str,
        metric: Metric,
        rounds: Sequence[Sequence[float]],
        *,
        calls: int = 1,
        sizes: Mapping[str, int] | None = None,
        note: str | None = None,
    ) -> Record:
        """The record of one metric from the samples of each round, at ``sizes`` or the subject's.

        ``note`` stands in place of that of the engine.
        """
        subject, manifest, checkout = self._subject, self._subject.manifest, self._checkout
        medians, place = round_medians(rounds), subject.place
        return Record(
            run_id=subject.run_id,
            time=self._time,
            model=subject.model.name,
            weights=manifest.model.weights,
            sizes=dict(subject.sizes if sizes is None else sizes),
            target=self._level.target.name,
            scheme=manifest.scheme,
            profile=manifest.profile,
            artifact=subject.digest,
            engine=engine.name,
            threads=subject.threads,
            metric=metric,
            unit=UNITS[metric],
            value=median(medians),
            interval=median_interval(medians),
            samples=tuple(sample for samples in rounds for sample in samples),
            samples_per_round=tuple(len(samples) for samples in rounds),
            calls_per_sample=calls,
            note="; ".join(part for part in (f"{engine.name} {version}: {engine.note}", place.note) if part)
            if note is None
            else note,
            machine=self._machine,
            versions=self._versions,
            commit=checkout.commit if checkout else None,
            dirty=checkout.dirty if checkout else None,
            commit_time=checkout.time if checkout else None,
            branch=checkout.branch if checkout else None,
        )

    def quality(
        self, engine: _Named, version: str, *, sizes: Mapping[str, int] | None = None
    ) -> list[Record]:
        """The records of how near the artifact's outputs are to the reference's; their note names that."""
        reference = self._level.verification.reference
        return [
            self.record(engine, version, metric, [(value,)], sizes=sizes, note=f"against {reference}")
            for metric, value in quality_of(self._level).items()
        ]
