"""Real gate runs on this machine: ``python -m assay.ci.gate.trials.experiment run FILE`` adds some to FILE
until ended.

Each is a gate run of benchmarks built before: two in three of identical code, up to the last decision; the
others with a slowdown planted in one benchmark (``subjects``), up to the decision on that one; in random
order. In one of four, a load generator runs beside. FILE has one gate run a line, whole or not at all, so
that the program may be ended at any time, and goes on where it was when started again. ``--part 2/3`` makes
the second of every three gate runs, so that several may run at a time, each on CPUs of its own.
``summary FILE ...`` tells how often the gate was right, with exact (Clopper-Pearson) intervals.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec

from assay.ci.gate.decision import Decision, Series, Settings, decide
from assay.ci.gate.processes import SideError
from assay.ci.gate.trials.lines import append_line, cut_last_line, read_lines
from assay.ci.gate.trials.load_generator import loaded
from assay.ci.gate.trials.subjects import PLANTED, SLOWDOWNS, Subject, build_subjects
from assay.ci.gate.turns import take_turns
from assay.errors import AssayError

__all__ = ["GateRun", "Measured", "gate_run", "main", "plan_of"]

# What a gate run may take, in rounds and in seconds.
MOST_ROUNDS, BUDGET_SECONDS = 60, 600.0
_TIMEOUT_SECONDS = 120.0
_IDENTICAL_PART, _LOADED_PART = 2 / 3, 1 / 4


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what the experiment writes."""


class Measured(Struct, frozen=True, kw_only=True):
    """One benchmark of a gate run: medians of each process run in seconds, and the decision on CPU times."""

    base_cpu: tuple[float, ...]
    head_cpu: tuple[float, ...]
    base_wall: tuple[float, ...]
    head_wall: tuple[float, ...]
    verdict: str
    finished: bool
    rounds: int
    effect: float | None
    interval: tuple[float, float] | None


class GateRun(Struct, frozen=True, kw_only=True):
    """One gate run: ``slowdown`` is what was planted in the benchmark ``PLANTED``, 0 for identical code.

    ``start`` is in seconds since 1970, ``load`` the machine's load average of a minute when it began.
    """

    number: int
    slowdown: float
    loaded: bool
    start: float
    seconds: float
    load: float
    max_rounds: int
    budget: float
    benchmarks: dict[str, Measured]
    failures: tuple[str, ...] = ()


def plan_of(number: int, slowdowns: Sequence[float] = SLOWDOWNS) -> tuple[float, bool]:
    """What gate run ``number`` plants, and whether the load generator runs: the same whenever it is asked."""
    size = round(len(slowdowns) / (1 - _IDENTICAL_PART))
    block, place = divmod(number, size)
    kinds = [*slowdowns, *[0.0] * (size - len(slowdowns))]
    order = random.Random(f"order {block}").sample(kinds, size)
    return order[place], random.Random(f"load {number}").random() < _LOADED_PART


def gate_run(
    subjects: Sequence[Subject],
    number: int,
    *,
    most_rounds: int = MOST_ROUNDS,
    budget: float = BUDGET_SECONDS,
) -> GateRun:
    """Gate run ``number``, for real."""
    slowdown, with_load = plan_of(number)
    settings = Settings(max_rounds=most_rounds)
    generator = random.Random(f"turns {number}")
    values = {subject.name: _Values() for subject in subjects}
    failures: list[str] = []
    load, start, clock = os.getloadavg()[0], time.time(), time.monotonic()
    decisions: dict[str, Decision] = {}
    with loaded() if with_load else nullcontext():
        for done in range(most_rounds):
            if done in settings.looks:
                decisions = _decide(values, settings)
            waiting = [
                one for one in subjects if not (one.name in decisions and decisions[one.name].finished)
            ]
            if slowdown and PLANTED not in {one.name for one in waiting}:
                break
            if not waiting or time.monotonic() - clock >= budget:
                break
            try:
                _round(waiting, slowdown, values, generator)
            except SideError as error:
                failures.append(f"{error.side}: {error.message}")
                if len(failures) > 3:
                    raise
    decisions = _decide(values, settings, spent=True)
    return GateRun(
        number=number,
        slowdown=slowdown,
        loaded=with_load,
        start=start,
        seconds=time.monotonic() - clock,
        load=load,
        max_rounds=most_rounds,
        budget=budget,
        benchmarks={name: values[name].measured(decision) for name, decision in decisions.items()},
        failures=tuple(failures),
    )


class _Values:
    """Process runs of one benchmark."""

    def __init__(self) -> None:
        self.cpu: tuple[list[float], list[float]] = ([], [])
        self.wall: tuple[list[float], list[float]] = ([], [])

    def measured(self, decision: Decision) -> Measured:
        return Measured(
            base_cpu=tuple(self.cpu[0]),
            head_cpu=tuple(self.cpu[1]),
            base_wall=tuple(self.wall[0]),
            head_wall=tuple(self.wall[1]),
            verdict=decision.verdict,
            finished=decision.finished,
            rounds=decision.rounds,
            effect=decision.effect,
            interval=decision.interval,
        )


def _round(
    subjects: Sequence[Subject], slowdown: float, values: dict[str, _Values], generator: random.Random
) -> None:
    """One process of each side, which measure all ``subjects``."""
    order = generator.sample(subjects, len(subjects))
    pairs = [(one.base, one.heads[slowdown if one.name == PLANTED else 0.0]) for one in order]
    runs = take_turns(pairs, generator, timeout=_TIMEOUT_SECONDS)
    for one, both in zip(order, runs, strict=True):
        for side, run in enumerate(both):
            values[one.name].cpu[side].append(run.cpu_time)
            values[one.name].wall[side].append(run.wall_time)


def _decide(values: dict[str, _Values], settings: Settings, *, spent: bool = False) -> dict[str, Decision]:
    series = {name: Series(base=tuple(one.cpu[0]), head=tuple(one.cpu[1])) for name, one in values.items()}
    return decide(series, settings, spent=spent)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m assay.ci.gate.trials.experiment", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run", help="add gate runs to the file, until ended")
    running.add_argument("file", type=Path)
    running.add_argument("--builds", type=Path, required=True, help="folder for what is measured, kept")
    running.add_argument("--count", type=int, default=sys.maxsize, help="end when the file has so many")
    running.add_argument("--part", type=_part, default=(1, 1), help="which of all gate runs, as 2/3")
    telling = verbs.add_parser("summary", help="how often the gate was right")
    telling.add_argument("files", type=Path, nargs="+", metavar="file")
    telling.add_argument("-o", "--output", type=Path, help="where to write it as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "summary":
            from assay.ci.gate.trials.summary import tell

            runs = [run for file in options.files for run in read_lines(file, GateRun)]
            return tell(runs, options.output)
        return _run(options.file, options.builds, options.count, options.part)
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text} is not of the form 2/3, a part and how many there are")
    return int(part), int(parts)


def _run(path: Path, builds: Path, count: int, part: tuple[int, int]) -> int:
    subjects = build_subjects(builds)
    cut_last_line(path)
    for line in range(len(read_lines(path, GateRun)), count):
        number = line * part[1] + part[0] - 1
        run = gate_run(subjects, number)
        append_line(path, run)
        verdicts = ", ".join(f"{name} {one.verdict} ({one.rounds})" for name, one in run.benchmarks.items())
        print(f"{number}: {run.slowdown:.0%}, {run.seconds:.0f} s, {verdicts}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
