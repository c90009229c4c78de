"""Rounds: in each, what is not decided runs once on both sides, in fresh processes and random order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from assay.ci.gate.processes import Contender, SideError
from assay.ci.gate.turns import take_turns
from assay.progress import Progress, SilentProgress

__all__ = ["Pair", "Run", "RunPair", "Runs", "in_turns", "measure_rounds"]

RunPair = Callable[["Pair", random.Random], tuple["Run", "Run"]]
Undecided = Callable[[Mapping[str, "Runs"]], Collection[str]]


class Run(Protocol):
    """What one process measured: times in seconds, memory in bytes."""

    @property
    def latency(self) -> float:
        """Of one run."""
        ...

    @property
    def load_time(self) -> float:
        """From importing the runtime to a loaded model."""
        ...

    @property
    def peak_memory(self) -> int | None:
        """The largest resident size; None where the system does not tell."""
        ...


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

    base: list[Run] = field(default_factory=list)
    head: list[Run] = field(default_factory=list)
    failed: tuple[str, str] | None = None


def measure_rounds(
    pairs: Mapping[str, Pair],
    undecided: Undecided,
    *,
    budget: float,
    seed: int,
    most_rounds: int,
    run_pair: RunPair,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
) -> dict[str, Runs]:
    """Run rounds until none is ``undecided``, ``budget`` seconds are spent, or ``most_rounds`` are done.

    Both sides of a subject run one after the other, so that they share what the machine does then, in an
    order drawn from ``seed``; so is that of the subjects. A process of each side runs before the first
    round and does not count: it finds what does not run, and leaves caches warm for both. A process that
    fails is run once more.
    """
    progress = progress or SilentProgress()
    generator = random.Random(seed)
    found = {name: Runs() for name in pairs}
    with progress.step("first runs"):
        for name, pair in pairs.items():
            _run(run_pair, pair, found[name], generator)
    start = clock()
    for number in range(most_rounds):
        open_ones = [name for name in undecided(found) if found[name].failed is None]
        if not open_ones:
            break
        with progress.step(f"round {number + 1}: {len(open_ones)} of {len(pairs)} undecided"):
            for name in generator.sample(open_ones, len(open_ones)):
                if clock() - start >= budget:
                    return found
                both = _run(run_pair, pairs[name], found[name], generator)
                if both is not None:
                    found[name].base.append(both[0])
                    found[name].head.append(both[1])
    return found


def _run(run_pair: RunPair, pair: Pair, runs: Runs, generator: random.Random) -> tuple[Run, Run] | None:
    """Both runs, or None where a side has failed twice; that is noted in ``runs``."""
    try:
        return run_pair(pair, generator)
    except SideError:
        pass
    try:
        return run_pair(pair, generator)
    except SideError as error:
        runs.failed = (error.side, error.message)
        return None


def in_turns(timeout: float) -> RunPair:
    """Runs both sides in processes that take turns, sample by sample, within ``timeout`` seconds."""

    def run_pair(pair: Pair, generator: random.Random) -> tuple[Run, Run]:
        ((base, head),) = take_turns([(pair.base, pair.head)], generator, timeout=timeout)
        return base, head

    return run_pair
