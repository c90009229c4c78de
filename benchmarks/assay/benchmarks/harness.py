"""Measure engines on one model: rounds of fresh processes, one at a time, in random order."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from assay.benchmarks.arrays import load_arrays, save_arrays
from assay.benchmarks.job import Job, Report
from assay.benchmarks.machine import choose_cpus
from assay.benchmarks.measurement import Measurement, Subject, make_records
from assay.benchmarks.peers import Engine, ModelFiles, engines
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

REFERENCE = "onnxruntime"
DEFAULT_ENGINES = ("assay", REFERENCE)
DEFAULT_ROUNDS = 5
_SECONDS_PER_ROUND = 0.4
_TIMEOUT_SECONDS = 300.0


def unavailable_engines(
    names: Iterable[str], model: str, artifact: Path, canonical: CanonicalModel | None
) -> dict[str, str]:
    """Those of ``names`` that cannot run the model here, with the reason. Raises UnknownNameError."""
    files = _files(model, artifact, canonical)
    reasons = {name: engines()[name].unavailable(files) for name in names}
    return {name: reason for name, reason in reasons.items() if reason is not None}


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
    progress: Progress | None = None,
) -> list[Record]:
    """Records of every metric of every engine on ``model``.

    Each round starts a fresh process per engine, one after the other in an order drawn from ``seed``, on
    the same inputs (the default sizes of the symbolic dimensions, unless ``sizes`` says otherwise), thread
    count and CPUs. ``canonical`` may be None when only our engine is measured. ``compile_seconds``, the
    seconds of the build, adds its record.

    Raises BenchmarkError when an engine is not available, fails, hangs for ``timeout`` seconds, or gives
    outputs beyond the model's tolerance from ONNX Runtime's; UsageError for more threads than CPUs.
    """
    progress = progress or SilentProgress()
    if rounds < 1 or threads < 1 or not engines_to_run:
        raise UsageError("A benchmark needs at least one round, one thread and one engine.")
    chosen = [engines()[name] for name in dict.fromkeys(engines_to_run)]
    files = _files(model.name, artifact, canonical)
    for name, reason in unavailable_engines(engines_to_run, model.name, artifact, canonical).items():
        raise BenchmarkError(f"{name} cannot be measured on {model.name}: {reason}.")
    opened = open_artifact(artifact, verify=False)
    full = {**model.default_sizes(), **(sizes or {})}
    cpus = choose_cpus(threads)
    reports: dict[str, list[Report]] = {engine.name: [] for engine in chosen}
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        with progress.step(f"{model.name}: make inputs"):
            save_arrays(folder / "inputs.npz", make_inputs(model, full, seed))
        for engine, index in _schedule(chosen, rounds, seed):
            job = Job(
                engine=engine.name,
                model=files.name,
                artifact=str(files.artifact),
                canonical=str(files.canonical) if files.canonical else None,
                threads=threads,
                cpus=cpus,
                inputs=str(folder / "inputs.npz"),
                outputs=str(folder / f"{engine.name}.npz") if index == 0 else None,
                report=str(folder / "report.json"),
                seconds=seconds_per_round,
            )
            what = f"{model.name}, {_counted(threads, 'thread')}, {engine.name}"
            with progress.step(f"{what}: round {index + 1} of {rounds}"):
                reports[engine.name].append(run_worker(job, timeout))
        if REFERENCE in reports:
            outputs = {engine.name: load_arrays(folder / f"{engine.name}.npz") for engine in chosen}
            check_agreement(outputs, full, model.tolerance)
    subject = Subject(
        run_id=run_id,
        model=model,
        manifest=opened.manifest,
        digest=f"sha256:{hashlib.sha256(opened.read(MANIFEST)).hexdigest()}",
        files=files,
        sizes=full,
        threads=threads,
    )
    measured = [Measurement(engine=engine, reports=tuple(reports[engine.name])) for engine in chosen]
    return make_records(subject, measured, compile_seconds=compile_seconds)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _files(model: str, artifact: Path, canonical: CanonicalModel | None) -> ModelFiles:
    path = canonical.path.absolute() if canonical is not None else None
    return ModelFiles(name=model, artifact=artifact.absolute(), canonical=path)


def _schedule(chosen: Sequence[Engine], rounds: int, seed: int) -> list[tuple[Engine, int]]:
    """Who runs when: every engine once a round, in random order, so that drift favours nobody."""
    generator = random.Random(seed)
    return [(engine, index) for index in range(rounds) for engine in generator.sample(chosen, len(chosen))]


def run_worker(job: Job, timeout: float = _TIMEOUT_SECONDS) -> Report:
    """Do ``job`` in a fresh process. Raises BenchmarkError, with its last line of stderr, when that fails."""
    report = Path(job.report)
    report.unlink(missing_ok=True)
    # -P keeps the current folder off the module path: what lies in it must not stand in for a package.
    command = [sys.executable, "-P", "-m", "assay.benchmarks.worker"]
    where = f"{job.engine} failed on {job.model}"
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(job), capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{where}: it did not finish one round within {timeout:g} s.") from None
    if done.returncode:
        raise BenchmarkError(f"{where}: {_failure(done)}")
    try:
        return msgspec.json.decode(report.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise BenchmarkError(f"{where}: its worker left no report.") from error


def _failure(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1].strip() if lines else "it wrote nothing to stderr"
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return f"its process was ended by {name} ({last})"
    return last


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
