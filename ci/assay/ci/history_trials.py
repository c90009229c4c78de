"""How often the steps of benchmarks over commits are found right, on made-up histories whose steps are known.

``python -m assay.ci.history_trials`` prints two tables: the histories of ``assay.results.synthetic``, whose
30 commits have seven steps in thirteen series, and single series of one step or none, by the noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from scipy.stats import binomtest

from assay.results.changes import find_changes
from assay.results.history import LEAST_EFFECT, find_shifts
from assay.results.record import UNITS
from assay.results.series import Point, Series, SeriesKey
from assay.results.synthetic import BENCHMARKS, Benchmark, Noise, draw_values, key_of

__all__ = ["HistoryOutcome", "SeriesOutcome", "main", "try_histories", "try_series"]

_COMMITS = 30
_START = datetime(2026, 1, 1, tzinfo=UTC)
# So many series are looked at together in the second table, as in the first.
_TOGETHER = len(BENCHMARKS)
_STEPS = (1.02, 1.03, 1.05, 1.10)
_NOISES = (Noise.NORMAL, Noise.OUTLIERS, Noise.HEAVY_TAILS)


@dataclass(frozen=True, kw_only=True)
class HistoryOutcome:
    """Counts over histories: steps planted, found at their commit, one commit off, and found where none is.

    ``right`` histories have every step at its commit and nothing else; ``off_by_one`` at most one commit off.
    """

    histories: int
    planted: int
    exact: int
    near: int
    false: int
    right: int
    off_by_one: int


@dataclass(frozen=True, kw_only=True)
class SeriesOutcome:
    """Counts over series of one step: found at its commit, one commit off, and steps found elsewhere."""

    series: int
    exact: int
    near: int
    false: int


def try_histories(count: int, *, first_seed: int = 0) -> HistoryOutcome:
    """Look for steps in ``count`` histories, of seeds from ``first_seed`` on."""
    planted = exact = near = false = right = off_by_one = 0
    for seed in range(first_seed, first_seed + count):
        generator = np.random.default_rng(seed)
        series = [_series(benchmark, generator) for benchmark in BENCHMARKS]
        found: dict[SeriesKey, list[int]] = {}
        for shift in find_shifts(series).shifts:
            if shift.confirmed:
                found.setdefault(shift.key, []).append(int(shift.commit))
        outcomes = [
            _matched([step for step, _ in benchmark.steps], found.get(key_of(benchmark), []))
            for benchmark in BENCHMARKS
        ]
        here = sum(len(benchmark.steps) for benchmark in BENCHMARKS)
        hits, misses, wrong = (sum(column) for column in zip(*outcomes, strict=True))
        planted, exact, near, false = planted + here, exact + hits, near + misses, false + wrong
        right += hits == here and not wrong and not misses
        off_by_one += hits + misses == here and not wrong
    return HistoryOutcome(
        histories=count,
        planted=planted,
        exact=exact,
        near=near,
        false=false,
        right=right,
        off_by_one=off_by_one,
    )


def try_series(count: int, noise: Noise, ratio: float | None, *, seed: int = 0) -> SeriesOutcome:
    """Look for a step of ``ratio`` in the middle third of ``count`` series; for none where it is None."""
    generator = np.random.default_rng((seed, list(Noise).index(noise), round(1000 * (ratio or 1))))
    exact = near = false = 0
    for _ in range(count):
        at = int(generator.integers(_COMMITS // 3, 2 * _COMMITS // 3))
        steps = () if ratio is None else ((at, ratio),)
        benchmark = Benchmark(model="tried", value=0.01, noise=noise, spread=0.01, steps=steps)
        values = draw_values(benchmark, _COMMITS, generator)
        changes = find_changes(values, least_effect=LEAST_EFFECT, together=_TOGETHER)
        hits, misses, wrong = _matched(
            [step for step, _ in steps], [change.index for change in changes if change.confirmed]
        )
        exact, near, false = exact + hits, near + misses, false + wrong
    return SeriesOutcome(series=count, exact=exact, near=near, false=false)


def _series(benchmark: Benchmark, generator: np.random.Generator) -> Series:
    values = draw_values(benchmark, _COMMITS, generator)
    points = [_point(number, value) for number, value in enumerate(values)]
    return Series(key=key_of(benchmark), unit=UNITS[benchmark.metric], points=tuple(points))


def _point(number: int, value: float) -> Point:
    time = _START + timedelta(days=number)
    return Point(
        commit=str(number),
        commit_time=time,
        branch="main",
        dirty=False,
        time=time + timedelta(hours=1),
        value=value,
        interval=None,
        rounds=5,
        run_id=str(number),
        artifact="synthetic",
        key=str(number),
    )


def _matched(planted: Sequence[int], found: Sequence[int]) -> tuple[int, int, int]:
    """How many of ``planted`` were found, how many one commit off, and how many of ``found`` are neither."""
    exact = set(planted) & set(found)
    near = {step for step in planted if step not in exact and {step - 1, step + 1} & (set(found) - exact)}
    return len(exact), len(near), len(found) - len(exact) - len(near)


def _share(part: int, whole: int) -> str:
    interval = binomtest(part, whole).proportion_ci(0.95)
    return f"{part} of {whole} ({100 * interval.low:.2f}% to {100 * interval.high:.2f}%)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--histories", type=int, default=200, help="histories to make up [default: 200]")
    parser.add_argument("--series", type=int, default=500, help="series of each kind [default: 500]")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    outcome = try_histories(given.histories, first_seed=given.seed)
    series = len(BENCHMARKS) * outcome.histories
    right, near = outcome.right, outcome.off_by_one
    print("| of made-up histories | (95% interval) |\n| --- | --- |")
    print(f"| steps found at their commit | {_share(outcome.exact, outcome.planted)} |")
    print(
        f"| steps found there or one commit off | {_share(outcome.exact + outcome.near, outcome.planted)} |"
    )
    print(f"| steps found elsewhere, of series | {_share(outcome.false, series)} |")
    print(f"| histories with every step at its commit, and no other | {_share(right, outcome.histories)} |")
    print(f"| histories with that, or one commit off | {_share(near, outcome.histories)} |\n")
    print("| noise | step | found at its commit | or one off | found elsewhere |")
    print("| --- | --- | --- | --- | --- |")
    for noise in _NOISES:
        for ratio in (None, *_STEPS):
            tried = try_series(given.series, noise, ratio, seed=given.seed)
            step = "none" if ratio is None else f"{100 * (ratio - 1):+.0f}%"
            cells = [_percent(tried.exact, tried.series), _percent(tried.exact + tried.near, tried.series)]
            cells = ["", ""] if ratio is None else cells
            print(
                f"| {noise} | {step} | {' | '.join(cells)} | {_share(tried.false, tried.series)} |",
                flush=True,
            )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%"


if __name__ == "__main__":
    main()
