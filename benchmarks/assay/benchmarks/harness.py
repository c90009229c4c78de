"""Measure engines on one model: rounds of fresh processes, one at a time, in random order."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from assay.benchmarks.arrays import load_arrays, save_arrays
from assay.benchmarks.job import Job, Report
from assay.benchmarks.measurement import Measurement, Subject, make_records
from assay.benchmarks.peers import Engine, ModelFiles, engines
from assay.benchmarks.places import Place, ThisMachine
from assay.benchmarks.process import run_module
from assay.errors import BenchmarkError, UsageError, VerificationError
from assay.models.inputs import make_inputs
from assay.progress import Progress, SilentProgress
from assay.results.record import Record
from assay.runtime.artifact import MANIFEST, open_artifact

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.export import CanonicalModel
    from assay.models.spec import ModelSpec, Tolerance

__all__ = ["DEFAULT_ENGINES", "DEFAULT_ROUNDS", "REFERENCE", "bench", "unavailable_engines"]

OURS = "assay"
REFERENCE = "onnxruntime"
DEFAULT_ENGINES = (OURS, REFERENCE)
DEFAULT_ROUNDS = 5
_SECONDS_PER_ROUND = 0.4
# Long: torch.compile takes minutes for its first run on a busy machine.
_TIMEOUT_SECONDS = 900.0


def unavailable_engines(
    names: Iterable[str],
    model: str,
    artifact: Path,
    canonical: CanonicalModel | None,
    place: Place | None = None,
) -> dict[str, str]:
    """Those of ``names`` that cannot run the model there, with the reason. Raises UnknownNameError."""
    return (place or ThisMachine()).unavailable(names, _files(model, artifact, canonical))


def bench(
    model: ModelSpec,
    artifact: Path,
    canonical: CanonicalModel | None,
    *,
    run_id: str,
    engines_to_run: Sequence[str] = DEFAULT_ENGINES,
    threads: int = 1,
    rounds: int = DEFAULT_ROUNDS,
    seconds_per_round: float = _SECONDS_PER_ROUND,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    timeout: float = _TIMEOUT_SECONDS,
    compile_seconds: float | None = None,
    others: Mapping[Path, float | None] | None = None,
    place: Place | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Records of every metric of every engine on ``model``.

    Each round starts a fresh process per engine, one after the other in an order drawn from ``seed``, on
    the same inputs (the default sizes of the symbolic dimensions, unless ``sizes`` says otherwise), thread
    count and CPUs. ``canonical`` may be None when only our engine is measured. ``compile_seconds``, the
    seconds of the build, adds its record. ``others`` are more artifacts of the model, with the seconds of
    their builds: our engine runs each of them in turn with the rest. ``place`` is where the rounds run, by
    default this machine; where ONNX Runtime is not among the engines there, it runs here once, to compare.

    Raises BenchmarkError when an engine is not available, fails, hangs for ``timeout`` seconds, or gives
    outputs beyond the model's tolerance from ONNX Runtime's; UsageError for more threads than CPUs.
    """
    progress, place = progress or SilentProgress(), place or ThisMachine()
    if rounds < 1 or threads < 1 or not engines_to_run:
        raise UsageError("A benchmark needs at least one round, one thread and one engine.")
    chosen = [engines()[name] for name in dict.fromkeys(engines_to_run)]
    files = _files(model.name, artifact, canonical)
    for name, reason in place.unavailable(engines_to_run, files).items():
        raise BenchmarkError(f"{name} cannot be measured on {model.name}: {reason}.")
    builds = {artifact: compile_seconds, **(others or {})}
    runs = [
        _Contestant(
            engine=engine,
            files=replace(files, artifact=path.absolute()),
            path=path,
            profile=open_artifact(path, verify=False).manifest.profile,
        )
        for engine in chosen
        for path in (builds if engine.name == OURS else [artifact])
    ]
    full = {**model.default_sizes(), **(sizes or {})}
    cpus = place.choose_cpus(threads)
    reports: list[list[Report]] = [[] for _ in runs]
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        with progress.step(f"{model.name}: make inputs"):
            save_arrays(folder / "inputs.npz", make_inputs(model, full, seed))
        for number, index in _schedule(len(runs), rounds, seed):
            run = runs[number]
            job = Job(
                engine=run.engine.name,
                model=files.name,
                artifact=str(run.files.artifact),
                canonical=str(files.canonical) if files.canonical else None,
                threads=threads,
                cpus=cpus,
                inputs=str(folder / "inputs.npz"),
                outputs=str(folder / f"{number}.npz") if index == 0 else None,
                report=str(folder / "report.json"),
                seconds=seconds_per_round,
            )
            what = f"{model.name}, {_counted(threads, 'thread')}, {run.engine.name}"
            if run.engine.name == OURS and len(builds) > 1:
                what += f" ({run.profile})"
            with progress.step(f"{what}: round {index + 1} of {rounds}"):
                reports[number].append(place.run(job, timeout))
        if place.cpu is not None and canonical is not None and REFERENCE not in engines_to_run:
            with progress.step(f"{model.name}: run {REFERENCE} here"):
                runs.append(_reference(files, artifact, folder, len(runs), timeout))
        _check_all(runs, folder, full, model.tolerance)
        runs = runs[: len(reports)]
    records = []
    for path, seconds in builds.items():
        opened = open_artifact(path, verify=False)
        subject = Subject(
            run_id=run_id,
            model=model,
            manifest=opened.manifest,
            digest=f"sha256:{hashlib.sha256(opened.read(MANIFEST)).hexdigest()}",
            sizes=full,
            threads=threads,
            place=place,
        )
        measured = [
            Measurement(engine=run.engine, reports=tuple(found))
            for run, found in zip(runs, reports, strict=True)
            if run.path == path
        ]
        records += make_records(
            subject, measured, files=replace(files, artifact=path.absolute()), compile_seconds=seconds
        )
    return records


@dataclass(frozen=True, kw_only=True)
class _Contestant:
    """An engine with what it loads; ``path`` is the artifact, of ``profile``, that its records go with."""

    engine: Engine
    files: ModelFiles
    path: Path
    profile: str


def _reference(files: ModelFiles, artifact: Path, folder: Path, number: int, timeout: float) -> _Contestant:
    """ONNX Runtime's outputs on this machine, as those of the run ``number``; nothing is measured."""
    job = Job(
        engine=REFERENCE,
        model=files.name,
        artifact=str(files.artifact),
        canonical=str(files.canonical),
        threads=1,
        cpus=(),
        inputs=str(folder / "inputs.npz"),
        outputs=str(folder / f"{number}.npz"),
        report=str(folder / "report.json"),
        seconds=0.0,
        least_samples=1,
    )
    run_worker(job, timeout)
    return _Contestant(engine=engines()[REFERENCE], files=files, path=artifact, profile="")


def _check_all(
    runs: Sequence[_Contestant], folder: Path, sizes: Mapping[str, int], tolerance: Tolerance
) -> None:
    """Compare what each gave with the reference's, if that was among them."""
    names = [run.engine.name for run in runs]
    if REFERENCE not in names:
        return
    outputs = [load_arrays(folder / f"{index}.npz") for index in range(len(runs))]
    reference = outputs[names.index(REFERENCE)]
    for name, found in zip(names, outputs, strict=True):
        check_agreement({name: found, REFERENCE: reference}, sizes, tolerance)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _files(model: str, artifact: Path, canonical: CanonicalModel | None) -> ModelFiles:
    path = canonical.path.absolute() if canonical is not None else None
    return ModelFiles(name=model, artifact=artifact.absolute(), canonical=path)


def _schedule(count: int, rounds: int, seed: int) -> list[tuple[int, int]]:
    """Who runs in which round: everybody once a round, in random order, so that drift favours nobody."""
    generator = random.Random(seed)
    return [(who, index) for index in range(rounds) for who in generator.sample(range(count), count)]


def run_worker(job: Job, timeout: float = _TIMEOUT_SECONDS) -> Report:
    """Do ``job`` in a fresh process. Raises BenchmarkError, with its last line of stderr, when that fails."""
    (report,) = run_workers([job], timeout)
    return report


def run_workers(jobs: Sequence[Job], timeout: float = _TIMEOUT_SECONDS) -> list[Report]:
    """Do ``jobs`` of one engine and number of threads, one after the other, in one fresh process.

    Raises BenchmarkError as ``run_worker`` does.
    """
    for job in jobs:
        Path(job.report).unlink(missing_ok=True)
    run_module("assay.benchmarks.worker", msgspec.json.encode(list(jobs)), timeout, lambda: _where(jobs))
    try:
        return [msgspec.json.decode(Path(job.report).read_bytes(), type=Report) for job in jobs]
    except (OSError, msgspec.MsgspecError) as error:
        raise BenchmarkError(f"{_where(jobs)}: its worker left no report.") from error


def _where(jobs: Sequence[Job]) -> str:
    """Who failed on what: the first of ``jobs`` that left no report."""
    undone = next((job for job in jobs if not Path(job.report).is_file()), jobs[-1])
    return f"{undone.engine} failed on {undone.model}"


def check_agreement(
    outputs: Mapping[str, Mapping[str, npt.NDArray[Any]]], sizes: Mapping[str, int], tolerance: Tolerance
) -> None:
    """Raise BenchmarkError when an engine's outputs are beyond ``tolerance`` from the reference's."""
    from assay.compile.verify import compare

    expected = outputs[REFERENCE]
    for engine, found in outputs.items():
        if found.keys() != expected.keys():
            raise BenchmarkError(
                f"{engine} gives the outputs {', '.join(found)}; {REFERENCE} gives {', '.join(expected)}."
            )
        for name, reference in expected.items():
            try:
                compare(name, found[name], reference, sizes, tolerance)
            except VerificationError as error:
                raise BenchmarkError(
                    f"{engine} and {REFERENCE} do not compute the same: {error.message}",
                    hint="A figure of a wrong engine means nothing, so none was recorded.",
                ) from error
