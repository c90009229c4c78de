"""A whole gate run: trees of both commits, builds, exact figures, rounds, verdicts."""

from __future__ import annotations

import dataclasses
import difflib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from assay.benchmarks import sampling
from assay.benchmarks.machine import choose_cpus, fingerprint
from assay.benchmarks.provenance import versions
from assay.ci.gate.builds import Build, BuildOptions, Outcome, is_path
from assay.ci.gate.decision import Settings, Verdict
from assay.ci.gate.fitness import check_fitness, widening_of
from assay.ci.gate.instructions import count_instructions
from assay.ci.gate.judge import (
    Benchmark,
    Sampler,
    SideResult,
    compare_exact,
    exact_rows,
    unbuilt_row,
    with_accepted,
)
from assay.ci.gate.metrics import ExactMetric, metrics
from assay.ci.gate.processes import Contender
from assay.ci.gate.prompts import PHASES, prompt_tokens, write_prompt
from assay.ci.gate.report import BuildInfo, Finding, GateReport, GateSettings, Phase, Row, status_of
from assay.ci.gate.repository import Repository, Revision
from assay.ci.gate.rounds import Pair, in_turns, measure_rounds
from assay.ci.gate.settings_file import Accepted
from assay.ci.gate.sides import Side, open_side
from assay.ci.gate.signals import read_identity
from assay.errors import GateInfrastructureError, UsageError
from assay.progress import Progress, SilentProgress
from assay.results.record import utc_now

__all__ = ["GatePlan", "run_gate"]

# Builds of a side, where the first ones make it look slow to compile.
_MOST_BUILDS = 3
# A wall clock that went another way than the steady one by more was set meanwhile.
_CLOCK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class GatePlan:
    """What to compare, and how.

    ``models`` are names, or paths from the root of the repository. ``budget``: seconds for rounds, each of
    which takes samples for ``seconds``. ``sizes`` are DIM=N. ``cache``: a build cache for both sides;
    without one, both compile what they give. ``timeout``: seconds for a process that measures.
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
    instructions: bool = True
    timeout: float = 600.0


def run_gate(plan: GatePlan, progress: Progress | None = None) -> GateReport:
    """Build both sides, measure them in turn, and judge.

    Raises UsageError for what the machine or the plan does not allow, GateInfrastructureError where git, the
    file system or the set-up of this machine fails.
    """
    if not plan.models:
        raise UsageError(
            "There is nothing to compare.", hint="Name models with --models, or in assay-gate.toml."
        )
    for threads in plan.threads:
        choose_cpus(threads)
    start, wall = time.monotonic(), time.time()
    run, code = _Run(plan, progress or SilentProgress()), _code_state()
    try:
        with ExitStack() as stack:
            folder = TemporaryDirectory(prefix="assay-gate-", ignore_cleanup_errors=True)
            place = Path(stack.enter_context(folder))
            base, head = (
                stack.enter_context(
                    open_side(name, plan.repository, revision, place / name, run.cache, run.progress)
                )
                for name, revision in (("base", plan.base), ("head", plan.head))
            )
            rows = run.compare(base, head)
            sides = base.info(), head.info()
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise GateInfrastructureError(f"The gate cannot use{where}: {error.strerror or error}.") from error
    if _code_state() != code:
        raise GateInfrastructureError(
            "Assay was changed while it measured, and so was what measures.", hint="Run the gate again."
        )
    judged, unused = with_accepted(rows, plan.accepted)
    seconds = time.monotonic() - start
    jump = time.time() - wall - seconds
    if abs(jump) > _CLOCK_SECONDS:
        run.notes.append(
            f"The wall clock jumped by {jump:+.0f} s meanwhile; times are of a clock that does not."
        )
    status = status_of(judged)
    return GateReport(
        status=status,
        exit_code=status.exit_code,
        time=utc_now(),
        seconds=seconds,
        base=sides[0],
        head=sides[1],
        machine=fingerprint(),
        fitness=run.fitness,
        settings=run.settings(),
        rows=judged,
        builds=tuple(run.builds),
        notes=(*run.notes, *unused),
        versions=versions(),
    )


def _code_state() -> list[tuple[str, int]]:
    """Which version of each file measures that processes read when they start: later than this one did."""
    here = Path(__file__).parent
    files = (Path(sampling.__file__), here / "worker.py", here / "turn_worker.py")
    return [(str(path), path.stat().st_mtime_ns) for path in files]


@dataclass(frozen=True, kw_only=True)
class _Built:
    """A model that both sides built, and the inputs for both; ``prompt`` is a language model's length."""

    base: SideResult
    head: SideResult
    inputs: Path
    prompt: int | None = None


class _Run:
    """What is found while one plan is carried out."""

    def __init__(self, plan: GatePlan, progress: Progress) -> None:
        self.plan, self.progress = plan, progress
        self.cache = None if plan.cache is None else plan.cache.absolute()
        self.notes: list[str] = []
        self.fitness: tuple[Finding, ...] = ()
        self.builds: list[BuildInfo] = []

    def settings(self) -> GateSettings:
        """How was decided, as the report has it."""
        plan = self.plan
        return GateSettings(
            threshold=plan.settings.threshold,
            confidence=plan.settings.confidence,
            budget=plan.budget,
            widening=widening_of(self.fitness),
            seed=plan.seed,
            target=plan.build.target,
            scheme=plan.build.scheme,
            profile=plan.build.profile,
            sizes=plan.sizes,
        )

    def compare(self, base: Side, head: Side) -> list[Row]:
        """Build and measure every model; the rows, model by model."""
        _check_paths(self.plan.models, base.tree, head.tree)
        built: dict[str, _Built] = {}
        rows: dict[str, list[Row]] = {}
        for number, model in enumerate(self.plan.models):
            found = self._build(base, head, model, str(number))
            if isinstance(found, Row):
                rows[model] = [found]
            else:
                built[model] = found
        self._count_instructions(base, head, built)
        for row in self._measure(base, head, built):
            rows.setdefault(row.model, []).append(row)
        for model, one in built.items():
            rows[model] += exact_rows(model, one.base.figures, one.head.figures)
            self.builds += self._told(model, one)
        return [row for model in self.plan.models for row in rows[model]]

    def _told(self, model: str, built: _Built) -> Iterator[BuildInfo]:
        """What the manifests of both sides tell; of one of another form, nothing."""
        sides: tuple[tuple[Literal["base", "head"], SideResult], ...]
        sides = (("base", built.base), ("head", built.head))
        for side, result in sides:
            assert result.build.artifact is not None
            known = read_identity(result.build.artifact)
            if known is None:
                self.notes.append(f"The manifest of {model} of the {side} is of another form: no records.")
                continue
            identity, digest = known
            chosen = (size.partition("=") for size in self.plan.sizes)
            figures = {
                name: value
                for name, value in result.figures.items()
                if isinstance(value, float) and math.isfinite(value)
            }
            yield BuildInfo(
                side=side,
                model=model,
                name=identity.model.name,
                weights=identity.model.weights,
                artifact=digest,
                target=identity.levels[0].target.name,
                scheme=identity.scheme,
                profile=identity.profile,
                sizes={"batch": 1, "prompt": built.prompt}
                if built.prompt is not None
                else identity.sizes | {name: int(size) for name, _, size in chosen if size.isdecimal()},
                figures=figures,
            )

    def _build(self, base: Side, head: Side, model: str, place: str) -> _Built | Row:
        plan = self.plan
        before, after = (side.build(model, place, plan.build, self.progress) for side in (base, head))
        subject = Benchmark(model=model)
        if all(result.build.outcome is Outcome.MISSING for result in (before, after)):
            raise UsageError(f"Neither side knows the model {model}: {after.build.reason}")
        if any(result.build.outcome is not Outcome.BUILT for result in (before, after)):
            return unbuilt_row(subject, before.build, after.build)
        self._build_again_if_slow(base, head, model, place, before, after)
        assert before.build.artifact is not None
        assert after.build.artifact is not None
        known = [read_identity(path) for path in (before.build.artifact, after.build.artifact)]
        decoders = [one[0] for one in known if one is not None and one[0].decoder is not None]
        if len(decoders) == 2:
            path = head.folder / "inputs" / f"{place}.npz"
            prompt = write_prompt(path, *decoders, seed=plan.seed)
            return _Built(base=before, head=after, inputs=prompt, prompt=prompt_tokens(*decoders))
        with self.progress.step(f"make inputs of {model}"):
            inputs = head.make_inputs(
                after.build, place, sizes=plan.sizes, seed=plan.seed, timeout=plan.timeout
            )
        if isinstance(inputs, str):
            broken = Build(outcome=Outcome.BROKEN, reason=f"Its artifact does not run: {inputs}")
            return unbuilt_row(subject, before.build, broken)
        return _Built(base=before, head=after, inputs=inputs)

    def _build_again_if_slow(
        self, base: Side, head: Side, model: str, place: str, before: SideResult, after: SideResult
    ) -> None:
        """Build more often while the head seems to take too long, and keep the least time of each side."""
        metric = metrics()["compile_time"]
        assert isinstance(metric, ExactMetric)
        for number in range(1, _MOST_BUILDS):
            times = before.figures.get(metric.name, ""), after.figures.get(metric.name, "")
            if compare_exact(metric, *times)[0] is not Verdict.REGRESSION:
                return
            for side, result in ((head, after), (base, before)):
                again = side.build(model, f"{place}-{number}", self.plan.build, self.progress)
                values = result.figures[metric.name], again.figures.get(metric.name)
                result.figures[metric.name] = min(value for value in values if isinstance(value, float))

    def _count_instructions(self, base: Side, head: Side, built: dict[str, _Built]) -> None:
        decoders = [model for model, one in built.items() if one.prompt is not None]
        if self.plan.instructions and decoders:
            self.notes.append(f"No instructions of language models: {', '.join(decoders)}.")
        built = {model: one for model, one in built.items() if one.prompt is None}
        if not self.plan.instructions or not built:
            return
        contenders = [
            {model: self._contender(side, result, one.inputs, 1) for model, one, result in found}
            for side, found in (
                (base, [(model, one, one.base) for model, one in built.items()]),
                (head, [(model, one, one.head) for model, one in built.items()]),
            )
        ]
        with self.progress.step("count instructions"):
            counts, problem = count_instructions(contenders[0], contenders[1])
        if problem is not None:
            self.notes.append(f"No instructions: {problem}.")
        for model, (before, after) in counts.items():
            built[model].base.figures["instructions"] = before
            built[model].head.figures["instructions"] = after

    def _measure(self, base: Side, head: Side, built: dict[str, _Built]) -> list[Row]:
        if not built:
            return []
        plan = self.plan
        with self.progress.step("look at the machine"):
            self.fitness = check_fitness(max(plan.threads))
        benchmarks = [
            Benchmark(model=model, threads=count, phase=phase)
            for model, one in built.items()
            for phase in ((None,) if one.prompt is None else PHASES)
            for count in plan.threads
        ]
        pairs = {}
        for each in benchmarks:
            one, threads = built[each.model], each.threads or 1
            pairs[each.name] = Pair(
                base=self._contender(base, one.base, one.inputs, threads, each.phase),
                head=self._contender(head, one.head, one.inputs, threads, each.phase),
            )
        settings = dataclasses.replace(plan.settings, widening=widening_of(self.fitness))
        sampler = Sampler(benchmarks, settings)
        runs = measure_rounds(
            pairs,
            sampler.undecided,
            budget=plan.budget,
            seed=plan.seed,
            most_rounds=settings.max_rounds,
            run_pair=in_turns(plan.timeout),
            progress=self.progress,
        )
        return sampler.rows(runs)

    def _contender(
        self, side: Side, result: SideResult, inputs: Path, threads: int, phase: Phase | None = None
    ) -> Contender:
        assert result.build.artifact is not None
        return Contender(
            python=side.environment.python,
            artifact=result.build.artifact,
            inputs=inputs,
            threads=threads,
            cpus=choose_cpus(threads),
            seconds=self.plan.seconds,
            phase=phase,
        )


def _check_paths(models: Sequence[str], *trees: Path) -> None:
    """Raise UsageError for the path of a model that no tree has, before anything is built."""
    for model in filter(is_path, models):
        if not any((tree / model).exists() for tree in trees):
            suffix = Path(model).suffix
            known = [str(path.relative_to(tree)) for tree in trees for path in tree.rglob(f"*{suffix}")]
            near = difflib.get_close_matches(model, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Paths start at the root of the repository."
            raise UsageError(f"Neither side has a file {model}.", hint=hint)
