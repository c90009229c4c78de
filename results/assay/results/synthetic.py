"""A made-up history to try things on: a git repository, and records of benchmarks at each of its commits.

Which benchmark changes at which commit, and by how much, is known. Noise is like that of shared machines: a
process run has its luck (it is fast or slow as a whole), rounds and samples differ less, a few runs are
disturbed, and one benchmark has tails so heavy that its outliers look like steps.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import numpy as np

from assay.results.record import HIGHER_IS_BETTER, UNITS, Machine, Metric, Record, write_records
from assay.results.series import SeriesKey
from assay.results.statistics import median, round_medians

__all__ = [
    "BENCHMARKS",
    "MACHINE",
    "Benchmark",
    "Noise",
    "PlantedStep",
    "SyntheticHistory",
    "draw_levels",
    "draw_values",
    "key_of",
    "make_history",
]

MACHINE = Machine(
    cpu="Synthetic CPU",
    architecture="x86_64",
    features=("avx2", "f16c", "fma"),
    cores=8,
    cpus=8,
    memory_bytes=32 << 30,
    system="Linux 6.1",
    governor="performance",
    virtualisation=None,
)
_START = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
_ROUNDS, _SAMPLES = 5, 3
# The share of runs that something else on the machine disturbs, and how much longer they take.
_DISTURBED, _DELAYS = 0.02, (0.05, 0.3)


class Noise(StrEnum):
    """How the levels of process runs scatter."""

    NONE = "none"
    NORMAL = "normal"
    OUTLIERS = "outliers"
    HEAVY_TAILS = "heavy tails"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One series to make: ``value`` is its first level in the metric's unit, ``spread`` the relative noise.

    ``steps`` are pairs of the number of a commit, from 0, and the level from there on over that before.
    """

    model: str
    value: float
    metric: Metric = "latency"
    target: str = "x86-64-v3"
    scheme: str = "f32"
    engine: str = "assay"
    threads: int = 1
    noise: Noise = Noise.OUTLIERS
    spread: float = 0.01
    steps: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlantedStep:
    """A step that is known to be there; ``ratio`` is the level at and after ``commit`` over that before."""

    key: SeriesKey
    commit: str
    ratio: float


@dataclass(frozen=True, kw_only=True)
class SyntheticHistory:
    """A made-up history: ``commits`` are hashes, oldest first; ``results`` is the folder of the records."""

    repository: Path
    results: Path
    commits: tuple[str, ...]
    steps: tuple[PlantedStep, ...]


BENCHMARKS = (
    Benchmark(model="resnet18", value=0.041, steps=((12, 1.06),)),
    Benchmark(model="resnet18", value=0.043, engine="onnxruntime"),
    Benchmark(model="resnet18", value=0.012, scheme="int8", steps=((9, 1.10), (21, 0.92))),
    Benchmark(model="resnet18", value=0.055, target="x86-64-v2"),
    Benchmark(
        model="resnet18",
        value=148e6,
        metric="peak_memory",
        noise=Noise.NORMAL,
        spread=0.002,
        steps=((17, 1.04),),
    ),
    Benchmark(model="resnet18", value=47_012_864, metric="artifact_size", noise=Noise.NONE),
    Benchmark(model="minilm", value=0.0087, spread=0.008, steps=((18, 0.93),)),
    Benchmark(model="minilm", value=0.0102, spread=0.008, engine="onnxruntime"),
    Benchmark(
        model="minilm",
        value=91_226_112,
        metric="artifact_size",
        noise=Noise.NONE,
        steps=((20, 1.012),),
    ),
    Benchmark(model="silero-vad", value=0.00019, noise=Noise.HEAVY_TAILS, spread=0.015),
    Benchmark(model="silero-vad", value=0.00024, noise=Noise.HEAVY_TAILS, engine="onnxruntime"),
    Benchmark(model="smollm2-135m", value=61.0, metric="decode", scheme="int8", steps=((22, 0.94),)),
    Benchmark(model="smollm2-135m", value=0.31, metric="ttft", scheme="int8", noise=Noise.NORMAL),
)
"""Models, targets and schemes with regressions, improvements, and series in which nothing happens."""


def draw_levels(noise: Noise, spread: float, count: int, generator: np.random.Generator) -> list[float]:
    """Factors of ``count`` process runs around 1, independent of each other."""
    normal = generator.normal(size=count)
    if noise is Noise.NONE:
        return [1.0] * count
    if noise is Noise.HEAVY_TAILS:
        # Student's t with two degrees of freedom has no variance; cut where a run would be absurd.
        wide = np.clip(generator.standard_t(2, size=count), -20, 20)
        return [math.exp(spread * value) for value in wide]
    disturbed = generator.random(count) < (_DISTURBED if noise is Noise.OUTLIERS else 0.0)
    delays = np.where(disturbed, generator.uniform(*_DELAYS, size=count), 0.0)
    return [math.exp(spread * value + delay) for value, delay in zip(normal, delays, strict=True)]


def make_history(
    folder: Path,
    *,
    commits: int = 30,
    seed: int = 0,
    benchmarks: Sequence[Benchmark] = BENCHMARKS,
) -> SyntheticHistory:
    """Make a git repository in ``folder``, a commit a day, and a file of records for each commit.

    The records lie in ``results/runs``, which git ignores. The same arguments give the same bytes. Needs git.
    Raises ValueError for a step at a commit that there is not.
    """
    late = [step for benchmark in benchmarks for step, _ in benchmark.steps if not 0 < step < commits]
    if late:
        raise ValueError(f"there is no commit {late[0]} to step at among {commits}")
    generator = np.random.default_rng(seed)
    times = [_START + timedelta(days=day, minutes=int(generator.integers(0, 300))) for day in range(commits)]
    hashes = _make_repository(folder, times)
    levels = {
        benchmark: draw_levels(benchmark.noise, benchmark.spread, commits, generator)
        for benchmark in benchmarks
    }
    results = folder / "results" / "runs"
    for number, (commit, time) in enumerate(zip(hashes, times, strict=True)):
        write_records(
            results,
            [
                _record(benchmark, number, commit, time, levels[benchmark][number], generator)
                for benchmark in benchmarks
            ],
        )
    steps = [
        PlantedStep(key=key_of(benchmark), commit=hashes[number], ratio=ratio)
        for benchmark in benchmarks
        for number, ratio in benchmark.steps
    ]
    return SyntheticHistory(repository=folder, results=results, commits=tuple(hashes), steps=tuple(steps))


def _make_repository(folder: Path, times: Sequence[datetime]) -> list[str]:
    """Commits of the branch main, at ``times``; their hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    ignored = "/results/runs/\n"
    stream = [f"blob\nmark :1\ndata {len(ignored)}\n{ignored}\n"]
    for number, time in enumerate(times):
        content, message = f"{number}\n", f"Change the kernels, {number + 1} of {len(times)}"
        stream.append(
            "commit refs/heads/main\n"
            f"committer Synthetic <synthetic@example.org> {int(time.timestamp())} +0000\n"
            f"data {len(message)}\n{message}\n"
            "M 100644 :1 .gitignore\n"
            f"M 100644 inline kernels.txt\ndata {len(content)}\n{content}\n"
        )
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _git(folder, "fast-import", "--quiet", given="".join(stream))
    _git(folder, "reset", "--quiet", "--hard", "main")
    return _git(folder, "rev-list", "--reverse", "main").split()


def _git(folder: Path, *arguments: str, given: str | None = None) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


def draw_values(benchmark: Benchmark, commits: int, generator: np.random.Generator) -> list[float]:
    """What is recorded of a benchmark at each of so many commits: medians over the rounds of a run."""
    levels = draw_levels(benchmark.noise, benchmark.spread, commits, generator)
    return [
        median(round_medians(_measure(benchmark, number, luck, generator)))
        for number, luck in enumerate(levels)
    ]


def _measure(
    benchmark: Benchmark, number: int, luck: float, generator: np.random.Generator
) -> list[list[float]]:
    """The samples of each round of one process run."""
    level = benchmark.value * math.prod(ratio for step, ratio in benchmark.steps if number >= step)
    if benchmark.noise is Noise.NONE:
        return [[float(round(level))]]
    # Who is disturbed gets less done: a rate falls.
    level = level / luck if benchmark.metric in HIGHER_IS_BETTER else level * luck
    means = level * np.exp(generator.normal(0, benchmark.spread / 2, size=_ROUNDS))
    samples = means[:, np.newaxis] * np.exp(
        generator.normal(0, benchmark.spread / 4, size=(_ROUNDS, _SAMPLES))
    )
    return [[float(value) for value in row] for row in samples]


def _record(
    benchmark: Benchmark,
    number: int,
    commit: str,
    time: datetime,
    luck: float,
    generator: np.random.Generator,
) -> Record:
    rounds = _measure(benchmark, number, luck, generator)
    medians = round_medians(rounds)
    digest = f"{commit[:16]}{benchmark.target}{benchmark.scheme}".encode().hex()[:64].ljust(64, "0")
    return Record(
        run_id=f"{time:%Y%m%dT%H%M%SZ}-{commit[:6]}",
        time=f"{time + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
        model=benchmark.model,
        weights="trained",
        sizes={"batch": 1},
        target=benchmark.target,
        scheme=benchmark.scheme,
        profile="release",
        artifact=f"sha256:{digest}",
        engine=benchmark.engine,
        threads=benchmark.threads,
        metric=benchmark.metric,
        unit=UNITS[benchmark.metric],
        value=median(medians),
        # What a bootstrap of the median gives at the 95% level for five rounds.
        interval=(min(medians), max(medians)) if len(medians) > 1 else None,
        samples=tuple(value for samples_ in rounds for value in samples_),
        samples_per_round=tuple(len(samples_) for samples_ in rounds),
        note="synthetic",
        machine=MACHINE,
        versions={},
        commit=commit,
        dirty=False,
        commit_time=f"{time:%Y-%m-%dT%H:%M:%SZ}",
        branch="main",
    )


def key_of(benchmark: Benchmark) -> SeriesKey:
    """The key of the series that a benchmark's records make."""
    return SeriesKey(
        model=benchmark.model,
        sizes=(("batch", 1),),
        target=benchmark.target,
        scheme=benchmark.scheme,
        profile="release",
        engine=benchmark.engine,
        threads=benchmark.threads,
        metric=benchmark.metric,
        machine=MACHINE.identity(),
    )
