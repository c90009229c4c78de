"""A whole gate run: trees of both commits, builds, exact figures, rounds, verdicts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from assay.benchmarks.machine import choose_cpus, fingerprint
from assay.benchmarks.provenance import versions
from assay.ci.gate.builds import Build, BuildOptions, Outcome, build, make_inputs
from assay.ci.gate.decision import Settings
from assay.ci.gate.environments import Environment, is_assay, make_environment
from assay.ci.gate.judge import Benchmark, Sampler, SideResult, exact_rows, unbuilt_row, with_accepted
from assay.ci.gate.processes import Contender
from assay.ci.gate.report import Finding, GateReport, GateSettings, Row, SideInfo, status_of
from assay.ci.gate.repository import Repository, Revision
from assay.ci.gate.rounds import Pair, measure_rounds
from assay.ci.gate.settings_file import Accepted
from assay.ci.gate.signals import read_figures
from assay.errors import UsageError
from assay.progress import Progress, SilentProgress
from assay.results.record import utc_now

__all__ = ["GatePlan", "run_gate"]


@dataclass(frozen=True, kw_only=True)
class GatePlan:
    """What to compare, and how.

    ``models`` are names, or paths from the root of the repository. ``budget``: seconds for rounds.
    ``sizes`` are DIM=N. ``cache``: a build cache to use for both sides; without one, each side gets an
    empty one, so that both compile what they give.
    """

    repository: Repository
    base: Revision
    head: Revision
    models: tuple[str, ...]
    threads: tuple[int, ...] = (1,)
    build: BuildOptions = field(default_factory=BuildOptions)
    sizes: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    budget: float = 600.0
    seconds: float = 0.2
    seed: int = 0
    cache: Path | None = None
    accepted: tuple[Accepted, ...] = ()
    timeout: float = 600.0


@dataclass(frozen=True, kw_only=True)
class _Side:
    name: str
    revision: Revision
    tree: Path
    environment: Environment
    folder: Path
    cache: Path


def run_gate(plan: GatePlan, progress: Progress | None = None) -> GateReport:
    """Build both sides, measure them in turn, and judge.

    Raises UsageError for what the machine or the plan does not allow, GateInfrastructureError where git or
    the file system fails.
    """
    progress = progress or SilentProgress()
    if not plan.models:
        raise UsageError(
            "There is nothing to compare.", hint="Name models with --models, or in assay-gate.toml."
        )
    for threads in plan.threads:
        choose_cpus(threads)
    start = time.monotonic()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(TemporaryDirectory(prefix="assay-gate-", ignore_cleanup_errors=True))
        )
        sides = [
            _open_side(plan, name, revision, folder / name, stack, progress)
            for name, revision in (("base", plan.base), ("head", plan.head))
        ]
        rows = _compare(plan, sides[0], sides[1], folder, progress)
        infos = [_info(side) for side in sides]
    judged, notes = with_accepted(rows, plan.accepted)
    fitness: tuple[Finding, ...] = ()
    status = status_of(judged)
    return GateReport(
        status=status,
        exit_code=status.exit_code,
        time=utc_now(),
        seconds=time.monotonic() - start,
        base=infos[0],
        head=infos[1],
        machine=fingerprint(),
        fitness=fitness,
        settings=_settings(plan),
        rows=judged,
        notes=tuple(notes),
        versions=versions(),
    )


def _open_side(
    plan: GatePlan, name: str, revision: Revision, folder: Path, stack: ExitStack, progress: Progress
) -> _Side:
    """The files and the environment of one side, in paths as long as those of the other."""
    with progress.step(f"{name}: check out {revision}"):
        tree = stack.enter_context(plan.repository.tree(revision, folder / "tree"))
        environment = make_environment(tree, folder / "python")
    cache = plan.cache.absolute() if plan.cache is not None else folder / "cache"
    return _Side(name=name, revision=revision, tree=tree, environment=environment, folder=folder, cache=cache)


def _info(side: _Side) -> SideInfo:
    return SideInfo(
        ref=side.revision.ref,
        commit=side.revision.commit,
        worktree=side.revision.worktree,
        dirty=side.revision.dirty,
        own_code=is_assay(side.tree),
        notes=side.environment.notes,
    )


def _settings(plan: GatePlan) -> GateSettings:
    return GateSettings(
        threshold=plan.settings.threshold,
        confidence=plan.settings.confidence,
        budget=plan.budget,
        widening=plan.settings.widening,
        seed=plan.seed,
        target=plan.build.target,
        scheme=plan.build.scheme,
        profile=plan.build.profile,
        sizes=plan.sizes,
    )


def _compare(plan: GatePlan, base: _Side, head: _Side, folder: Path, progress: Progress) -> list[Row]:
    """Build and measure every model; its rows, model by model."""
    built: dict[str, tuple[SideResult, SideResult]] = {}
    inputs: dict[str, Path] = {}
    unbuilt: dict[str, list[Row]] = {}
    for number, model in enumerate(plan.models):
        results = tuple(_build(plan, side, model, number, progress) for side in (base, head))
        if any(result.build.outcome is not Outcome.BUILT for result in results):
            unbuilt[model] = [_unbuilt(model, results[0].build, results[1].build)]
            continue
        made = _inputs(plan, head, results[1].build, number, progress)
        if isinstance(made, str):
            broken = Build(outcome=Outcome.BROKEN, reason=f"Its artifact does not run: {made}")
            unbuilt[model] = [_unbuilt(model, results[0].build, broken)]
            continue
        built[model], inputs[model] = (results[0], results[1]), made
    benchmarks = [Benchmark(model=model, threads=threads) for model in built for threads in plan.threads]
    pairs = {each.name: _pair(plan, each, base, head, built, inputs) for each in benchmarks}
    sampler = Sampler(benchmarks, plan.settings)
    runs = measure_rounds(
        pairs,
        sampler.undecided,
        budget=plan.budget,
        seed=plan.seed,
        most_rounds=plan.settings.max_rounds,
        timeout=plan.timeout,
        progress=progress,
    )
    sampled = sampler.rows(runs) if benchmarks else []
    rows = []
    for model in plan.models:
        rows += unbuilt.get(model, [])
        rows += [row for row in sampled if row.model == model]
        if model in built:
            rows += exact_rows(model, built[model][0].figures, built[model][1].figures)
    return rows


def _unbuilt(model: str, base: Build, head: Build) -> Row:
    return unbuilt_row(Benchmark(model=model), base, head)


def _build(plan: GatePlan, side: _Side, model: str, number: int, progress: Progress) -> SideResult:
    with progress.step(f"{side.name}: build {model}"):
        artifact = side.folder / "artifacts" / str(number)
        done = build(model, side.tree, side.environment, artifact, side.cache, plan.build)
    if done.artifact is None:
        return SideResult(build=done)
    figures = read_figures(done.artifact)
    if done.compile_seconds is not None:
        figures["compile_time"] = done.compile_seconds
    return SideResult(build=done, figures=figures)


def _inputs(plan: GatePlan, head: _Side, done: Build, number: int, progress: Progress) -> Path | str:
    assert done.artifact is not None
    with progress.step("make inputs"):
        return make_inputs(
            done.artifact,
            head.tree,
            head.environment,
            head.folder / "inputs" / str(number),
            sizes=plan.sizes,
            seed=plan.seed,
            timeout=plan.timeout,
        )


def _pair(
    plan: GatePlan,
    benchmark: Benchmark,
    base: _Side,
    head: _Side,
    built: Mapping[str, tuple[SideResult, SideResult]],
    inputs: Mapping[str, Path],
) -> Pair:
    assert benchmark.threads is not None
    cpus = choose_cpus(benchmark.threads)
    contenders = []
    for side, result in zip((base, head), built[benchmark.model], strict=True):
        assert result.build.artifact is not None
        contenders.append(
            Contender(
                python=side.environment.python,
                artifact=result.build.artifact,
                inputs=inputs[benchmark.model],
                threads=benchmark.threads,
                cpus=cpus,
                seconds=plan.seconds,
            )
        )
    return Pair(base=contenders[0], head=contenders[1])
