"""Rounds: in each, what is not decided runs once on both sides, in fresh processes and random order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from assay.ci.gate.processes import Contender, ProcessRun, run_process
from assay.errors import BenchmarkError
from assay.progress import Progress, SilentProgress

__all__ = ["Pair", "Runs", "measure_rounds"]

Run = Callable[[Contender], ProcessRun]
Undecided = Callable[[Mapping[str, "Runs"]], Collection[str]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What the two sides of one subject run."""

    base: Contender
    head: Contender


@dataclass(kw_only=True)
class Runs:
    """Process runs of one subject: those at the same place ran one after the other.

    ``failed``: the side that failed twice in a row, and why; the subject is not run again then.
    """

    base: list[ProcessRun] = field(default_factory=list)
    head: list[ProcessRun] = field(default_factory=list)
    failed: tuple[str, str] | None = None


def measure_rounds(
    pairs: Mapping[str, Pair],
    undecided: Undecided,
    *,
    budget: float,
    seed: int,
    most_rounds: int,
    timeout: float = 600.0,
    run: Run | None = None,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
) -> dict[str, Runs]:
    """Run rounds until none is ``undecided``, ``budget`` seconds are spent, or ``most_rounds`` are done.

    Both sides of a subject run one after the other, so that they share what the machine does then, in an
    order drawn from ``seed``; so is that of the subjects. A process of each side runs before the first
    round and does not count: it finds what does not run, and leaves caches warm for both. A process that
    fails is run once more.
    """
    run = run or (lambda contender: run_process(contender, timeout=timeout))
    progress = progress or SilentProgress()
    generator = random.Random(seed)
    found = {name: Runs() for name in pairs}
    start = clock()
    with progress.step("first runs"):
        for name, pair in pairs.items():
            for side in ("base", "head"):
                _run_twice_at_most(run, getattr(pair, side), side, found[name])
    for number in range(most_rounds):
        open_ones = [name for name in undecided(found) if found[name].failed is None]
        if not open_ones:
            break
        with progress.step(f"round {number + 1}: {len(open_ones)} of {len(pairs)} undecided"):
            for name in generator.sample(open_ones, len(open_ones)):
                if clock() - start >= budget:
                    return found
                _run_pair(run, pairs[name], found[name], generator)
    return found


def _run_pair(run: Run, pair: Pair, runs: Runs, generator: random.Random) -> None:
    taken: dict[str, ProcessRun] = {}
    for side in generator.sample(("base", "head"), 2):
        one = _run_twice_at_most(run, getattr(pair, side), side, runs)
        if one is None:
            return
        taken[side] = one
    runs.base.append(taken["base"])
    runs.head.append(taken["head"])


def _run_twice_at_most(run: Run, contender: Contender, side: str, runs: Runs) -> ProcessRun | None:
    if runs.failed is not None:
        return None
    try:
        return run(contender)
    except BenchmarkError:
        pass
    try:
        return run(contender)
    except BenchmarkError as error:
        runs.failed = (side, error.message)
        return None
