"""What a gate run measured of both commits, as records of their history."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast, get_args

from assay.ci.gate.metrics import LATENCY, SampledMetric, metrics
from assay.ci.gate.report import BuildInfo, GateReport, Row, SideInfo
from assay.results.record import MAY_BE_ZERO, UNITS, Metric, Record, new_run_id
from assay.results.statistics import median, median_interval

__all__ = ["gate_records"]

_METRICS = frozenset(get_args(Metric))


def gate_records(report: GateReport) -> list[Record]:
    """Records of what both sides gave, of one run and the method ``gate``; of what is broken, none."""
    run_id = new_run_id()
    records: list[Record] = []
    for build in report.builds:
        side = report.base if build.side == "base" else report.head
        rows = [row for row in report.rows if row.model == build.model and _is_sampled(row)]
        for row in rows:
            runs = row.base_runs if build.side == "base" else row.head_runs
            if row.threads is None or not runs or not all(_is_value(row.metric, run) for run in runs):
                continue
            if row.phase is None or row.metric == LATENCY.name:
                metric, values, sizes = _of_phase(row, runs, build.sizes)
                records.append(_record(report, side, build, run_id, metric, row.threads, values, sizes))
            elif row.phase == "prefill":
                # What loading takes is the same in both phases.
                records.append(
                    _record(report, side, build, run_id, row.metric, row.threads, runs, build.sizes)
                )
        for metric, value in build.figures.items():
            if metric in _METRICS and _is_value(metric, value):
                records += [
                    _record(report, side, build, run_id, metric, threads, [value], build.sizes)
                    for threads in _threads(metric, rows)
                ]
    return records


def _of_phase(
    row: Row, runs: Sequence[float], sizes: Mapping[str, int]
) -> tuple[str, Sequence[float], Mapping[str, int]]:
    """Metric, values and sizes of a time, by the names that `assay bench llm` records it with."""
    if row.phase == "prefill":
        return "ttft", runs, sizes
    if row.phase == "decode":
        depth = {"batch": sizes["batch"], "depth": sizes["prompt"]}
        return "decode", [sizes["batch"] / seconds for seconds in runs], depth
    return row.metric, runs, sizes


def _is_sampled(row: Row) -> bool:
    return isinstance(metrics().get(row.metric), SampledMetric)


def _is_value(metric: str, value: float) -> bool:
    return math.isfinite(value) and (value > 0 or (value == 0 and metric in MAY_BE_ZERO))


def _threads(metric: str, rows: Sequence[Row]) -> Iterator[int]:
    """The numbers of threads that a figure of the build stands beside, as `assay bench` records it."""
    counts = sorted({row.threads for row in rows if row.threads is not None})
    # Instructions are those of one thread.
    yield from (1,) if metric == "instructions" or not counts else counts


def _record(
    report: GateReport,
    side: SideInfo,
    build: BuildInfo,
    run_id: str,
    metric: str,
    threads: int,
    values: Sequence[float],
    sizes: Mapping[str, int],
) -> Record:
    name = cast("Metric", metric)
    return Record(
        run_id=run_id,
        time=report.time,
        model=build.name,
        weights=build.weights,
        sizes=dict(sizes),
        target=build.target,
        scheme=build.scheme,
        profile=build.profile,
        artifact=build.artifact,
        engine="assay",
        threads=threads,
        metric=name,
        unit=UNITS[name],
        value=median(values),
        interval=median_interval(values),
        # Each is the figure of a process, the median of its samples.
        samples=tuple(values),
        samples_per_round=(1,) * len(values),
        note=f"assay gate, {build.side}: {metrics()[metric].note}"
        if metric in metrics()
        else f"assay gate, {build.side}",
        machine=report.machine,
        versions=report.versions,
        commit=side.commit,
        dirty=side.dirty,
        commit_time=side.commit_time,
        method="gate",
    )
