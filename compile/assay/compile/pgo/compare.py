"""Is one artifact faster than another? Both in one process, in turn on the same inputs, in several processes.

Machines drift and other work disturbs them, so that only pairs of neighbouring runs are compared. The verdict
rests on the median of the ratios and its distribution-free interval (order statistics, as for the sign test).
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.compile.pgo.workers import run_worker, save_cases, saved_cases
from assay.compile.pgo.workload import WorkloadCase
from assay.errors import VerificationError

if TYPE_CHECKING:
    from assay.models.spec import Array

__all__ = ["Comparison", "compare_artifacts", "judge"]

# What is less than this is noise, whatever the interval says.
NOISE = 0.01
_PROCESSES = 3
_PAIRS = 40
_LEAST_PAIRS = 8
_SECONDS = 1.0
_SAMPLE_SECONDS = 0.002
_TIMEOUT_SECONDS = 600
# Two-sided 95% of a normal distribution, for the ranks of the interval of a median.
_Z95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Seconds of the first artifact over those of the second, above 1 where the second is faster.

    ``low`` and ``high``: 95% interval of the median ``ratio``; ``first`` and ``second`` are median seconds.
    """

    sizes: Mapping[str, int]
    threads: int
    count: int
    ratio: float
    low: float
    high: float
    first: float
    second: float

    @property
    def faster(self) -> bool:
        """Whether the second is faster by more than noise."""
        return self.low > 1 + NOISE

    @property
    def slower(self) -> bool:
        """Whether the second is slower by more than noise, or may be by much."""
        return self.high < 1 / (1 + NOISE) or self.ratio < 1 / (1 + NOISE)


def compare_artifacts(
    first: Path,
    second: Path,
    cases: Sequence[WorkloadCase],
    threads: Sequence[int],
    folder: Path,
    *,
    level: str,
    seconds: float = _SECONDS,
) -> list[Comparison]:
    """Compare two artifacts on every case with every number of threads; inputs are written to ``folder``.

    ``seconds`` bounds the time of one case in one process. Raises VerificationError where one crashes.
    """
    save_cases(folder, cases)
    found = []
    for count in threads:
        arguments = [str(first), str(second), level, str(folder), str(count), str(seconds)]
        rounds = [
            json.loads(
                run_worker("assay.compile.pgo.compare", arguments, _TIMEOUT_SECONDS, VerificationError)
            )
            for _ in range(_PROCESSES)
        ]
        for i, case in enumerate(cases):
            pairs = [(a, b) for each in rounds for a, b in each[i]]
            found.append(judge(pairs, case, count))
    return found


def judge(pairs: Sequence[tuple[float, float]], case: WorkloadCase, threads: int) -> Comparison:
    """What pairs of seconds say; with few of them the interval is as wide as the ratios."""
    ratios = sorted(a / b for a, b in pairs)
    spread = _Z95 * math.sqrt(len(ratios)) / 2
    lower = max(0, math.floor(len(ratios) / 2 - spread))
    upper = min(len(ratios) - 1, math.ceil(len(ratios) / 2 + spread))
    return Comparison(
        sizes=case.sizes,
        threads=threads,
        count=case.count,
        ratio=statistics.median(ratios),
        low=ratios[lower],
        high=ratios[upper],
        first=statistics.median(a for a, _ in pairs),
        second=statistics.median(b for _, b in pairs),
    )


def interleaved(
    first: Callable[[], object], second: Callable[[], object], clock: Callable[[], float], seconds: float
) -> list[tuple[float, float]]:
    """Pairs of seconds of two functions, in turn, the order changing from pair to pair."""
    for warm in (first, second):
        warm()
    begin = time.perf_counter()
    first()
    once = time.perf_counter() - begin
    calls = max(1, int(_SAMPLE_SECONDS / max(once, 1e-7)))
    wanted = max(_LEAST_PAIRS, min(_PAIRS, int(seconds / (2 * calls * max(once, 1e-7)))))

    def sample(function: Callable[[], object]) -> float:
        start = clock()
        for _ in range(calls):
            function()
        return (clock() - start) / calls

    pairs = []
    for number in range(wanted):
        if number % 2:
            b = sample(second)
            a = sample(first)
        else:
            a = sample(first)
            b = sample(second)
        pairs.append((max(a, 1e-9), max(b, 1e-9)))
    return pairs


def main(arguments: list[str]) -> int:
    """Worker: ``FIRST SECOND LEVEL FOLDER THREADS SECONDS`` prints pairs of seconds for each case."""
    from assay.runtime import load

    first, second, level, folder, threads, seconds = arguments
    models = [load(path, level=level, threads=int(threads), verify=False) for path in (first, second)]
    # One thread is timed by what it computes, which other work on the machine disturbs least.
    clock = time.thread_time if int(threads) == 1 else time.perf_counter
    found = []
    for case in saved_cases(Path(folder)):
        a, b = (_call(model.run, case.inputs) for model in models)
        found.append(interleaved(a, b, clock, float(seconds)))
    print(json.dumps(found))
    return 0


def _call(run: Callable[[Mapping[str, Array]], object], inputs: Mapping[str, Array]) -> Callable[[], object]:
    return lambda: run(inputs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
