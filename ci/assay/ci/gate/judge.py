"""From what was built and measured to the rows of the report, each by the rule of its metric."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import msgspec

from assay.ci.gate.builds import Build, Outcome
from assay.ci.gate.decision import Decision, Series, Settings, Verdict, decide
from assay.ci.gate.metrics import LATENCY, ExactMetric, SampledMetric, metrics
from assay.ci.gate.report import Phase, Row
from assay.ci.gate.rounds import Runs
from assay.ci.gate.settings_file import Accepted
from assay.ci.gate.signals import Figures
from assay.results.statistics import median

__all__ = [
    "Benchmark",
    "Sampler",
    "SideResult",
    "compare_exact",
    "exact_rows",
    "unbuilt_row",
    "with_accepted",
]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A model on a number of threads; ``threads`` is None for what does not depend on it.

    ``phase`` is that of a language model.
    """

    model: str
    threads: int | None = None
    phase: Phase | None = None

    @property
    def name(self) -> str:
        """The name in the report."""
        subject = self.model if self.phase is None else f"{self.model}/{self.phase}"
        return subject if self.threads is None else f"{subject}/threads={self.threads}"


@dataclass(frozen=True, kw_only=True)
class SideResult:
    """What one side gave for one model: its build, and its figures where it was built."""

    build: Build
    figures: Figures = field(default_factory=dict)


class Sampler:
    """Decides on the sampled metrics while rounds go on, and gives their rows in the end."""

    def __init__(self, benchmarks: Sequence[Benchmark], settings: Settings) -> None:
        self._benchmarks = benchmarks
        self._metrics = [each for each in metrics().values() if isinstance(each, SampledMetric)]
        self._settings = {each.name: _settings_of(each, settings) for each in self._metrics}
        self._looks = frozenset(settings.looks)
        self._open = [benchmark.name for benchmark in benchmarks]

    def undecided(self, runs: Mapping[str, Runs]) -> Collection[str]:
        """Benchmarks for which rounds must go on."""
        self._open = [name for name in self._open if runs[name].failed is None]
        if any(len(runs[name].base) in self._looks for name in self._open):
            needed: set[str] = set()
            for metric in self._metrics:
                decisions = self._decide(metric, runs)
                needed |= {name for name, one in decisions.items() if self._needs_rounds(metric, one)}
            self._open = [name for name in self._open if name in needed]
        return self._open

    def _needs_rounds(self, metric: SampledMetric, decision: Decision) -> bool:
        """Whether a metric is not decided: one that does not drive only where it seems to have got worse."""
        if decision.finished or metric.drives:
            return not decision.finished
        return (
            decision.effect is not None and decision.effect - 1 >= self._settings[metric.name].threshold / 2
        )

    def rows(self, runs: Mapping[str, Runs]) -> list[Row]:
        """The rows of all sampled metrics; of what does not run, one row alone."""
        found = []
        decided = {metric.name: self._decide(metric, runs, spent=True) for metric in self._metrics}
        for benchmark in self._benchmarks:
            for metric in self._metrics:
                decision = decided[metric.name].get(benchmark.name)
                if decision is None or (runs[benchmark.name].failed is not None and metric is not LATENCY):
                    continue
                threshold = self._settings[metric.name].threshold
                found.append(_sampled_row(benchmark, metric, decision, runs[benchmark.name], threshold))
        return found

    def _decide(
        self, metric: SampledMetric, runs: Mapping[str, Runs], *, spent: bool = False
    ) -> dict[str, Decision]:
        series = {name: _series(metric, one) for name, one in runs.items()}
        return decide(
            {name: one for name, one in series.items() if one is not None},
            self._settings[metric.name],
            spent=spent,
        )


def _settings_of(metric: SampledMetric, settings: Settings) -> Settings:
    confidence = 1 - (1 - settings.confidence) * metric.share
    threshold = metric.threshold or settings.threshold
    return dataclasses.replace(settings, threshold=threshold, confidence=confidence)


def _series(metric: SampledMetric, runs: Runs) -> Series | None:
    """What the processes of both sides gave; None where the system does not tell."""
    base, head = ([metric.value(run) for run in side] for side in (runs.base, runs.head))
    if None in base or None in head:
        return None
    failure = None if runs.failed is None else f"The {runs.failed[0]} does not run: {runs.failed[1]}"
    return Series(
        base=tuple(value for value in base if value is not None),
        head=tuple(value for value in head if value is not None),
        failure=failure,
    )


def _sampled_row(
    benchmark: Benchmark, metric: SampledMetric, decision: Decision, runs: Runs, threshold: float
) -> Row:
    series = _series(metric, runs)
    assert series is not None
    verdict, reason = decision.verdict, decision.reason
    if verdict is Verdict.MISSING:
        # Both sides were built and run; there was no time for a single round.
        verdict, reason = Verdict.INCONCLUSIVE, "The budget was spent before its first round."
    # Times that are no times say nothing of the change, a head that does not run does.
    head_broke = verdict is Verdict.BROKEN and runs.failed is not None and runs.failed[0] == "head"
    clock_broke = verdict is Verdict.BROKEN and runs.failed is None
    return Row(
        benchmark=benchmark.name,
        model=benchmark.model,
        threads=benchmark.threads,
        phase=benchmark.phase,
        metric=metric.name,
        unit=metric.unit,
        verdict=verdict,
        fails=verdict is Verdict.REGRESSION or head_broke,
        undecided=metric.drives and (verdict is Verdict.INCONCLUSIVE or clock_broke),
        threshold=threshold,
        base=median(series.base) if series.base else None,
        head=median(series.head) if series.head else None,
        ratio=decision.effect,
        interval=decision.interval,
        confidence=decision.confidence,
        rounds=decision.rounds,
        base_runs=series.base,
        head_runs=series.head,
        reason=reason,
    )


def exact_rows(model: str, base: Figures, head: Figures) -> list[Row]:
    """The rows of the exact metrics of one model; none of a metric that neither side has."""
    rows = []
    for metric in metrics().values():
        if not isinstance(metric, ExactMetric):
            continue
        before, after = base.get(metric.name, "It was not read."), head.get(metric.name, "It was not read.")
        if isinstance(before, float) or isinstance(after, float):
            rows.append(_exact_row(model, metric, before, after))
    return rows


def _exact_row(model: str, metric: ExactMetric, base: float | str, head: float | str) -> Row:
    verdict, ratio, reason = compare_exact(metric, base, head)
    return Row(
        benchmark=model,
        model=model,
        threads=None,
        metric=metric.name,
        unit=metric.unit,
        verdict=verdict,
        # What the base does not give either cannot have got worse.
        fails=verdict is Verdict.REGRESSION or (_is_figure(base) and not _is_figure(head)),
        undecided=False,
        threshold=metric.relative,
        base=base if _is_figure(base) else None,
        head=head if _is_figure(head) else None,
        ratio=ratio,
        reason=reason,
    )


def compare_exact(
    metric: ExactMetric, base: float | str, head: float | str
) -> tuple[Verdict, float | None, str]:
    """The verdict on two figures (a text says why there is none), the ratio if there is one, and a reason."""
    for side, value in (("base", base), ("head", head)):
        if isinstance(value, str):
            return Verdict.MISSING, None, f"The {side} lacks it: {value}"
        if not _is_figure(value):
            return Verdict.BROKEN, None, f"The {side} gives {value:g}, which cannot be."
    assert isinstance(base, float)
    assert isinstance(head, float)
    ratio = head / base if base > 0 else 1.0 if head == base else None
    change = head - base
    matters = abs(change) > max(metric.absolute, metric.relative * base)
    if not change:
        return Verdict.UNCHANGED, ratio, "Equal."
    if not matters:
        allowed = f"{max(metric.absolute, metric.relative * base):.3g}"
        return Verdict.UNCHANGED, ratio, f"It changed by {change:+.3g}, and {allowed} is allowed."
    verdict = Verdict.REGRESSION if change > 0 else Verdict.IMPROVEMENT
    return verdict, ratio, f"From {base:.6g} to {head:.6g}{'' if ratio is None else f', {ratio - 1:+.2%}'}."


def _is_figure(value: float | str) -> TypeGuard[float]:
    return isinstance(value, float) and math.isfinite(value) and value >= 0


def unbuilt_row(benchmark: Benchmark, base: Build, head: Build) -> Row:
    """The row of a benchmark that one side, or both, could not build."""
    broken = [
        (side, build)
        for side, build in (("base", base), ("head", head))
        if build.outcome is not Outcome.BUILT
    ]
    reason = " ".join(
        f"The {side} {'lacks it' if build.outcome is Outcome.MISSING else 'does not build'}: {build.reason}"
        for side, build in broken
    )
    is_broken = any(build.outcome is Outcome.BROKEN for _, build in broken)
    return Row(
        benchmark=benchmark.name,
        model=benchmark.model,
        threads=benchmark.threads,
        metric=LATENCY.name,
        unit=LATENCY.unit,
        verdict=Verdict.BROKEN if is_broken else Verdict.MISSING,
        # What the base cannot do either is not the head's doing.
        fails=base.outcome is Outcome.BUILT,
        undecided=False,
        threshold=0.0,
        reason=reason,
    )


def with_accepted(rows: Sequence[Row], accepted: Sequence[Accepted]) -> tuple[tuple[Row, ...], list[str]]:
    """``rows`` with what is accepted noted, and a sentence on each acceptance that nothing needed."""
    used: set[int] = set()
    found = []
    for row in rows:
        if row.fails:
            for number, entry in enumerate(accepted):
                about = entry.covers(row.model, row.benchmark, row.metric)
                if about and entry.allows(row.verdict.value, row.ratio):
                    used.add(number)
                    why = f"{entry.reason} ({entry.author}, until {entry.expires})"
                    row = msgspec.structs.replace(row, fails=False, accepted=why)
                    break
        found.append(row)
    unused = [
        f"No change needs the acceptance of {entry.metric} of {entry.benchmark}."
        for number, entry in enumerate(accepted)
        if number not in used
    ]
    return tuple(found), unused
