"""The search: the table for every workload first, then the strategy, until the budget is spent.

A candidate counts only when its numbers were NumPy's, when it was faster by more than noise, and when a
second, longer measurement says so again: the best of many noisy figures is an optimistic one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.compile.cache import installed_versions
from assay.compile.pgo.compare import NOISE
from assay.compile.schedules.choices import Choice, Workload
from assay.compile.targets.microarchitecture import cpu_model
from assay.compile.targets.target import Target
from assay.compile.tune.journal import Journal, Trial, now, opened_journal
from assay.compile.tune.measure import BUILDER, CandidateMeasurer, Measured, Measurer
from assay.compile.tune.space import Space, space_of
from assay.compile.tune.strategies import Strategy, strategies
from assay.progress import Progress, SilentProgress

__all__ = ["Question", "TuneResult", "journal_path", "measured_versions", "tune"]

_TRIAL_SECONDS = 0.12
_CONFIRM_SECONDS = 0.6
_MOST_CONFIRMED = 3
_TURN = 16


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is the best choice for ``workload``, with panels of ``width`` columns where they are packed so?

    ``weight``: seconds that a better choice would be worth a share of.
    """

    workload: Workload
    width: int | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """Choices that were confirmed to be faster, by the key of their workload, and the trials behind them."""

    choices: dict[str, Choice]
    confirmed: tuple[Trial, ...]
    tried: int
    rejected: int
    exhausted: bool


def journal_path(folder: Path, target: Target) -> Path:
    """Where the journal of a target is kept."""
    return folder / f"{target.name}.jsonl"


def measured_versions() -> dict[str, str]:
    """The versions that a measurement depends on."""
    return installed_versions(("apache-tvm",))


def tune(
    questions: Sequence[Question],
    target: Target,
    *,
    budget: float,
    folder: Path,
    threads: int = 1,
    strategy: str = "table",
    builder: str = BUILDER,
    timeout: float = 60.0,
    measurer: CandidateMeasurer | None = None,
    cpu: str | None = None,
    progress: Progress | None = None,
) -> TuneResult:
    """Search for about ``budget`` seconds, with the journal in ``folder``.

    ``measurer`` measures the candidates, on the CPU that ``cpu`` describes; by default a process here. What
    an earlier run tried is not tried again. Raises UnknownNameError for a strategy that there is not,
    TuningRecordError for a damaged journal, StorageError.
    """
    progress = progress or SilentProgress()
    further = strategies()[strategy]
    deadline = time.monotonic() + budget
    cpu = cpu or cpu_model()
    ordered = sorted(questions, key=lambda question: -question.weight)
    with (
        opened_journal(journal_path(folder, target), cpu=cpu, versions=measured_versions()) as journal,
        measurer or Measurer(target.name, builder=builder, timeout=timeout) as measuring,
    ):
        search = _Search(journal, measuring, target, threads, deadline, cpu)
        with progress.step(f"tune {len(ordered)} workloads"):
            exhausted = search.run(ordered, strategies()["table"])
            if further.name != "table" and exhausted:
                exhausted = search.run(ordered, further)
            confirmed = search.confirm(ordered)
    asked = [
        trial
        for trial in journal.trials
        if any(trial.same_question(each.workload, threads, each.width) for each in ordered)
    ]
    return TuneResult(
        choices={trial.workload: trial.decided for trial in confirmed},
        confirmed=tuple(confirmed),
        tried=len(asked),
        rejected=sum(trial.status != "ok" for trial in asked),
        exhausted=exhausted,
    )


class _Search:
    def __init__(
        self,
        journal: Journal,
        measurer: CandidateMeasurer,
        target: Target,
        threads: int,
        deadline: float,
        cpu: str,
    ) -> None:
        self._journal = journal
        self._measurer = measurer
        self._target = target
        self._threads = threads
        self._deadline = deadline
        self._cpu = cpu

    def run(self, questions: Iterable[Question], strategy: Strategy) -> bool:
        """Ask ``strategy`` for candidates in rounds; whether it had no more before the time was up."""
        pending = list(questions)
        while pending:
            for question in list(pending):
                # Several of one workload in a row: its baseline and reference are made once.
                for _ in range(_TURN):
                    if time.monotonic() >= self._deadline:
                        return False
                    candidate = strategy.propose(self._space(question), self._trials(question))
                    if candidate is None:
                        pending.remove(question)
                        break
                    self._measure(question, candidate, _TRIAL_SECONDS, confirm=False)
        return True

    def confirm(self, questions: Iterable[Question]) -> list[Trial]:
        """The best candidate of each question that is still faster when it is measured again."""
        winners = []
        for question in questions:
            trials = self._trials(question)
            best = next((trial for trial in trials if trial.confirmed), None)
            if best is None:
                promising = sorted(
                    (t for t in trials if t.status == "ok" and t.low > 1 + NOISE), key=lambda t: -t.ratio
                )
                again = (
                    self._measure(question, trial.decided, _CONFIRM_SECONDS, confirm=True)
                    for trial in promising[:_MOST_CONFIRMED]
                )
                best = next((trial for trial in again if trial.confirmed), None)
            if best is not None:
                winners.append(best)
        return winners

    def _trials(self, question: Question) -> list[Trial]:
        return [
            trial
            for trial in self._journal.trials
            if trial.same_question(question.workload, self._threads, question.width)
        ]

    def _space(self, question: Question) -> Space:
        unit = self._target.vector_unit
        return space_of(question.workload, unit, self._threads, panel_width=question.width)

    def _measure(self, question: Question, candidate: Choice, seconds: float, *, confirm: bool) -> Trial:
        baseline = Choice(panel_width=self._space(question).analytic.panel_width)
        found: Measured = self._measurer.measure(
            question.workload, candidate, baseline, self._threads, seconds
        )
        trial = Trial(
            workload=question.workload.key,
            threads=self._threads,
            width=question.width,
            choice=candidate.as_dict(),
            status=found.status,
            ratio=found.ratio,
            low=found.low,
            seconds=found.seconds,
            baseline_seconds=found.baseline_seconds,
            confirmed=confirm and found.status == "ok" and found.low > 1 + NOISE,
            error=found.error,
            cpu=self._cpu,
            time=now(),
            versions=measured_versions(),
        )
        self._journal.add(trial)
        return trial
