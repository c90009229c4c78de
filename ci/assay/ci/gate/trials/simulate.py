"""Simulate gate runs on recorded process runs: ``python -m assay.ci.gate.trials.simulate POOL -o FILE``.

POOL is what ``recorder`` wrote: process runs of identical code, in the order of time. A gate run takes a
stretch of it, so that noise keeps its correlation in time and between benchmarks, and draws anew which
process of each pair is the base, as a gate run draws the order. A slowdown multiplies the times of one
benchmark's head. The gate, on pairs that took turns and on pairs that did not, is beside other rules on the
same stretch of pairs that did not, which is how other tools run: see ``rivals``. Stretches overlap, so that
the exact intervals of the proportions tell of the draws, and not of another day.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from assay.ci.gate.decision import Series, Settings, Verdict, decide
from assay.ci.gate.trials.lines import read_lines
from assay.ci.gate.trials.recorder import RecordedPair
from assay.ci.gate.trials.rivals import asv_finds_slower, t_test_finds_slower
from assay.ci.gate.trials.tally import Proportion, proportion
from assay.ci.gate.turns import TurnRun
from assay.ci.json_file import write_json
from assay.errors import AssayError, UsageError

__all__ = ["Outcome", "main", "simulate"]

SLOWDOWNS = (0.0, 0.03, 0.05, 0.1, 0.3)
MOST_ROUNDS = 60
# What asv takes by default: two processes, five samples of each.
_ASV_PROCESSES, _ASV_SAMPLES = 2, 5
_LEVEL = 0.01


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One rule on gate runs with one slowdown planted.

    ``caught``: the benchmark that it was planted in was called slower; None where nothing was planted.
    ``false_alarms``: another one was. ``rounds``: the median of those used; None for rules that take what
    they are given.
    """

    rule: str
    slowdown: float
    caught: Proportion | None
    false_alarms: Proportion
    rounds: float | None


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Process runs of one simulated gate run, by benchmark: samples in seconds, round by round."""

    base: dict[str, list[tuple[float, ...]]]
    head: dict[str, list[tuple[float, ...]]]


Rule = Callable[[_Stretch], tuple[set[str], int | None]]


def simulate(
    pool: Sequence[RecordedPair], *, count: int, seed: int = 0, settings: Settings | None = None
) -> list[Outcome]:
    """Outcomes of all rules on ``count`` gate runs for each slowdown. Raises UsageError for a pool too
    small.
    """
    settings = settings or Settings(max_rounds=MOST_ROUNDS)
    turned, apart = ([pair for pair in pool if pair.in_turn is in_turn] for in_turn in (True, False))
    if min(len(turned), len(apart)) < settings.max_rounds:
        raise UsageError(
            f"The pool has {len(turned)} pairs that took turns and {len(apart)} that did not; "
            f"a gate run may take {settings.max_rounds} of either."
        )
    rules: dict[str, tuple[Sequence[RecordedPair], bool, Rule]] = {
        "gate, in turn, CPU time": (turned, True, _gate(settings)),
        "gate, in turn, wall clock": (turned, False, _gate(settings)),
        "gate, one after the other, CPU time": (apart, True, _gate(settings)),
        "gate, one after the other, wall clock": (apart, False, _gate(settings)),
        "asv continuous": (apart, False, _asv(1.1, recorded=False, default=True)),
        "asv continuous --factor 1.03": (apart, False, _asv(1.03, recorded=False, default=True)),
        "asv continuous --factor 1.03 --record-samples": (
            apart,
            False,
            _asv(1.03, recorded=True, default=True),
        ),
        "asv --factor 1.03 --record-samples, all rounds": (
            apart,
            False,
            _asv(1.03, recorded=True, default=False),
        ),
        "t-test on samples": (apart, False, _t_test(0.0, default=True)),
        "t-test on samples, all rounds": (apart, False, _t_test(0.0, default=False)),
        "t-test on samples and 3%, all rounds": (apart, False, _t_test(settings.threshold, default=False)),
    }
    return [
        _outcome(name, rule, slowdown, _stretches(pairs, settings.max_rounds, slowdown, count, seed, cpu=cpu))
        for slowdown in SLOWDOWNS
        for name, (pairs, cpu, rule) in rules.items()
    ]


def _outcome(
    name: str, rule: Rule, slowdown: float, stretches: Iterator[tuple[str | None, _Stretch]]
) -> Outcome:
    caught, alarms, rounds = [], [], []
    for planted, stretch in stretches:
        slower, used = rule(stretch)
        if planted is not None:
            caught.append(planted in slower)
        alarms.append(bool(slower - {planted}))
        if used is not None:
            rounds.append(used)
    return Outcome(
        rule=name,
        slowdown=slowdown,
        caught=proportion(caught) if slowdown else None,
        false_alarms=proportion(alarms),
        rounds=float(np.median(rounds)) if rounds else None,
    )


def _stretches(
    pairs: Sequence[RecordedPair], rounds: int, slowdown: float, count: int, seed: int, *, cpu: bool
) -> Iterator[tuple[str | None, _Stretch]]:
    """Stretches of ``rounds`` pairs, each with the benchmark that is slowed; the same for every rule."""
    generator = random.Random(f"{seed} {slowdown}")
    names = sorted(pairs[0].runs)
    for _ in range(count):
        start = generator.randrange(len(pairs) - rounds + 1)
        planted = generator.choice(names) if slowdown else None
        base: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
        head: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
        for pair in pairs[start : start + rounds]:
            # One draw for all benchmarks of a pair: which process is the base.
            swapped = generator.random() < 0.5
            for name, both in pair.runs.items():
                first, second = reversed(both) if swapped else both
                factor = 1 + slowdown if name == planted else 1.0
                base[name].append(_samples(first, cpu=cpu))
                head[name].append(tuple(factor * sample for sample in _samples(second, cpu=cpu)))
        yield planted, _Stretch(base=base, head=head)


def _samples(run: TurnRun, *, cpu: bool) -> tuple[float, ...]:
    return run.cpu if cpu else run.wall


def _gate(settings: Settings) -> Rule:
    def rule(stretch: _Stretch) -> tuple[set[str], int | None]:
        series = {
            name: Series(base=_medians(runs), head=_medians(stretch.head[name]))
            for name, runs in stretch.base.items()
        }
        decisions = decide(series, settings)
        slower = {name for name, one in decisions.items() if one.verdict is Verdict.REGRESSION}
        return slower, max(one.rounds for one in decisions.values())

    return rule


def _medians(runs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(float(np.median(samples)) for samples in runs)


def _asv(factor: float, *, recorded: bool, default: bool) -> Rule:
    def slower(base: Sequence[Sequence[float]], head: Sequence[Sequence[float]]) -> bool:
        return asv_finds_slower(base, head, factor=factor, recorded=recorded)

    return _each(slower, default=default)


def _t_test(threshold: float, *, default: bool) -> Rule:
    def slower(base: Sequence[Sequence[float]], head: Sequence[Sequence[float]]) -> bool:
        return t_test_finds_slower(base, head, level=_LEVEL, threshold=threshold)

    return _each(slower, default=default)


def _each(
    slower: Callable[[Sequence[Sequence[float]], Sequence[Sequence[float]]], bool], *, default: bool
) -> Rule:
    """A rule that looks at each benchmark by itself; by ``default`` at what asv would have measured."""

    def chosen(runs: Mapping[str, list[tuple[float, ...]]], name: str) -> list[tuple[float, ...]]:
        return [run[:_ASV_SAMPLES] for run in runs[name][:_ASV_PROCESSES]] if default else runs[name]

    def rule(stretch: _Stretch) -> tuple[set[str], int | None]:
        found = {
            name for name in stretch.base if slower(chosen(stretch.base, name), chosen(stretch.head, name))
        }
        return found, None

    return rule


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m assay.ci.gate.trials.simulate", description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--count", type=int, default=1000, help="gate runs for each slowdown (default: 1000)")
    parser.add_argument("--rounds", type=int, default=MOST_ROUNDS, help="of a gate run (default: 60)")
    parser.add_argument("-o", "--output", type=Path, help="where to write what was found, as JSON")
    options = parser.parse_args(arguments)
    try:
        settings = Settings(max_rounds=options.rounds)
        outcomes = simulate(read_lines(options.pool, RecordedPair), count=options.count, settings=settings)
        if options.output is not None:
            write_json(options.output, outcomes)
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("| rule | slowdown | caught | false alarms | rounds |")
    print("| --- | --- | --- | --- | --- |")
    for one in outcomes:
        rounds = "" if one.rounds is None else f"{one.rounds:g}"
        print(f"| {one.rule} | {one.slowdown:.0%} | {one.caught or ''} | {one.false_alarms} | {rounds} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
