"""How often real gate runs were right: a table, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from assay.ci.gate.decision import Series, Settings, Verdict, decide
from assay.ci.gate.trials.subjects import PLANTED
from assay.ci.gate.trials.tally import Proportion, proportion
from assay.ci.json_file import write_json

if TYPE_CHECKING:
    from assay.ci.gate.trials.experiment import GateRun

__all__ = ["Arm", "Summary", "summarize", "tell"]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """Gate runs of one kind, by name.

    ``slowdown``: that planted in one benchmark. ``caught``: that benchmark called a regression; None where
    nothing was planted. ``false_alarms``: gate runs that called a benchmark of identical code a regression;
    ``false_improvements``: one an improvement. ``decided``: benchmarks whose verdict came within the budget.
    ``measured``: the ratio of CPU times of the planted benchmark over all rounds, its median. ``seconds``
    and ``rounds`` are the median and the maximum of a gate run; ``rounds`` those of its longest benchmark.
    """

    name: str
    slowdown: float
    caught: Proportion | None
    false_alarms: Proportion
    false_improvements: Proportion
    decided: Proportion
    measured: float
    seconds: tuple[float, float]
    rounds: tuple[int, int]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All arms, and how noisy the machine was.

    ``load``: the least, the median and the largest load average at the start of a gate run. ``noise``: the
    median of the absolute logarithm of the ratio within a round, of identical code, of CPU time and of wall
    clock, by benchmark. ``wall``: false alarms on identical code had the decisions been made on the same
    rounds by the wall clock.
    """

    arms: tuple[Arm, ...]
    load: tuple[float, float, float]
    noise: dict[str, tuple[float, float]]
    wall: Proportion


def summarize(runs: Sequence[GateRun]) -> Summary:
    """The summary of ``runs``, of which there must be some."""
    slowdowns = sorted({run.slowdown for run in runs} - {0.0})
    kinds: dict[str, tuple[float, Callable[[GateRun], bool]]] = {
        "identical": (0.0, lambda run: run.slowdown == 0),
        "identical, load generator": (0.0, lambda run: run.slowdown == 0 and run.loaded),
        "identical, without": (0.0, lambda run: run.slowdown == 0 and not run.loaded),
    }
    for part in slowdowns:
        kinds[f"{part:.0%} slower"] = (part, lambda run, part=part: run.slowdown == part)  # type: ignore[misc]
    arms = []
    for name, (slowdown, belongs) in kinds.items():
        chosen = [run for run in runs if belongs(run)]
        if chosen:
            arms.append(_arm(name, slowdown, chosen))
    loads = [run.load for run in runs]
    same = [run for run in runs if run.slowdown == 0]
    return Summary(
        arms=tuple(arms),
        load=(min(loads), float(np.median(loads)), max(loads)),
        noise=_noise(same),
        wall=proportion(_false_alarm_by_wall(run) for run in same),
    )


def _arm(name: str, slowdown: float, runs: Sequence[GateRun]) -> Arm:
    planted = [run.benchmarks[PLANTED] for run in runs]
    ratios = [head / base for one in planted for base, head in zip(one.base_cpu, one.head_cpu, strict=True)]
    longest = [max(one.rounds for one in run.benchmarks.values()) for run in runs]
    seconds = [run.seconds for run in runs]
    return Arm(
        name=name,
        slowdown=slowdown,
        caught=proportion(one.verdict == Verdict.REGRESSION for one in planted) if slowdown else None,
        false_alarms=proportion(Verdict.REGRESSION in _same_code(run) for run in runs),
        false_improvements=proportion(Verdict.IMPROVEMENT in _same_code(run) for run in runs),
        decided=proportion(
            one.verdict != Verdict.INCONCLUSIVE for run in runs for one in run.benchmarks.values()
        ),
        measured=float(np.median(ratios)),
        seconds=(float(np.median(seconds)), max(seconds)),
        rounds=(int(np.median(longest)), max(longest)),
    )


def _same_code(run: GateRun) -> set[str]:
    """Verdicts on the benchmarks in which nothing was planted."""
    return {one.verdict for name, one in run.benchmarks.items() if not (run.slowdown and name == PLANTED)}


def _noise(runs: Sequence[GateRun]) -> dict[str, tuple[float, float]]:
    found = {}
    for name in sorted({name for run in runs for name in run.benchmarks}):
        ratios: tuple[list[float], list[float]] = ([], [])
        for run in runs:
            one = run.benchmarks[name]
            for kind, (base, head) in enumerate(
                ((one.base_cpu, one.head_cpu), (one.base_wall, one.head_wall))
            ):
                ratios[kind].extend(abs(math.log(y / x)) for x, y in zip(base, head, strict=True))
        found[name] = (float(np.median(ratios[0])), float(np.median(ratios[1])))
    return found


def _false_alarm_by_wall(run: GateRun) -> bool:
    series = {name: Series(base=one.base_wall, head=one.head_wall) for name, one in run.benchmarks.items()}
    decisions = decide(series, Settings(max_rounds=run.max_rounds), spent=True)
    return any(decision.verdict is Verdict.REGRESSION for decision in decisions.values())


def tell(runs: Sequence[GateRun], output: Path | None) -> int:
    """Print the summary, and write it to ``output``; 1 where there are no runs."""
    if not runs:
        print("There are no gate runs yet.")
        return 1
    summary = summarize(runs)
    print("| gate runs | caught | false alarms | decided | measured | seconds | rounds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for arm in summary.arms:
        seconds = f"{arm.seconds[0]:.0f}, at most {arm.seconds[1]:.0f}"
        rounds = f"{arm.rounds[0]}, at most {arm.rounds[1]}"
        told = (
            arm.name,
            arm.caught or "",
            arm.false_alarms,
            arm.decided,
            f"{arm.measured:.4f}",
            seconds,
            rounds,
        )
        print(f"| {' | '.join(map(str, told))} |")
    print(f"False alarms by the wall clock on the same rounds: {summary.wall}.")
    print("Load average: {:.1f} at least, {:.1f} median, {:.1f} at most.".format(*summary.load))
    for name, (cpu, wall) in summary.noise.items():
        print(f"Noise of one round of {name}: {cpu:.2%} of CPU time, {wall:.2%} of wall clock.")
    if output is not None:
        write_json(output, summary)
    return 0
