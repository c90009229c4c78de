"""Measure engines on reference kernels: every round one fresh process for each engine, all kernels in it."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.benchmarks import harness
from assay.benchmarks.arrays import load_arrays, save_arrays
from assay.benchmarks.job import Job, Report
from assay.benchmarks.kernels import KernelSpec, kernel_model
from assay.benchmarks.machine import choose_cpus
from assay.benchmarks.measurement import Measurement, Subject, make_records
from assay.benchmarks.peers import Engine, ModelFiles, engines
from assay.compile.build import BuildResult
from assay.errors import BenchmarkError, UsageError
from assay.models.inputs import make_inputs
from assay.progress import Progress, SilentProgress
from assay.results.record import Record
from assay.runtime.artifact import MANIFEST, open_artifact

__all__ = ["KERNEL_ENGINES", "BuiltKernel", "bench_kernels", "build_kernels"]

KERNEL_ENGINES = ("assay", "onnxruntime", "numpy", "torch")
_TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class BuiltKernel:
    """A kernel with what its build gave."""

    spec: KernelSpec
    build: BuildResult

    @property
    def files(self) -> ModelFiles:
        """What engines load."""
        return ModelFiles(
            name=self.spec.name,
            artifact=self.build.path.absolute(),
            canonical=self.build.canonical.path.absolute(),
        )


def build_kernels(
    specs: Sequence[KernelSpec], *, target: str, cache: Path | None, progress: Progress | None = None
) -> list[BuiltKernel]:
    """Compile and verify each kernel, from the cache where it has it. Raises what ``build_artifact`` does."""
    from assay.compile.build import build_artifact

    progress = progress or SilentProgress()
    built = []
    for spec in specs:
        with progress.step(f"build {spec.name}"):
            result = build_artifact(kernel_model(spec), target=target, cache=cache)
        built.append(BuiltKernel(spec=spec, build=result))
    return built


def bench_kernels(
    kernels: Sequence[BuiltKernel],
    *,
    run_id: str,
    engines_to_run: Sequence[str],
    threads: int,
    rounds: int,
    seconds_per_round: float,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Record]:
    """Records of the latency of every engine on every kernel.

    Engines take turns by the round, in random order; a process runs all kernels, each warmed up by itself.
    Raises as ``assay.benchmarks.harness.bench`` does.
    """
    progress = progress or SilentProgress()
    if rounds < 1 or threads < 1 or not engines_to_run or not kernels:
        raise UsageError("A benchmark needs at least one kernel, one round, one thread and one engine.")
    chosen = [engines()[name] for name in dict.fromkeys(engines_to_run)]
    for engine in chosen:
        reason = next(filter(None, (engine.unavailable(kernel.files) for kernel in kernels)), None)
        if reason is not None:
            raise BenchmarkError(f"{engine.name} cannot be measured on kernels: {reason}.")
    cpus = choose_cpus(threads)
    generator = random.Random(seed)
    reports: dict[tuple[str, str], list[Report]] = {}
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        with progress.step("make inputs"):
            for kernel in kernels:
                arrays = make_inputs(kernel_model(kernel.spec), {}, seed)
                save_arrays(folder / f"{kernel.spec.name}.npz", arrays)
        for index in range(rounds):
            for engine in generator.sample(chosen, len(chosen)):
                jobs = [
                    _job(kernel, engine, folder, threads, cpus, seconds_per_round, keep=index == 0)
                    for kernel in kernels
                ]
                with progress.step(f"{engine.name}, threads: {threads}, round {index + 1} of {rounds}"):
                    found = harness.run_workers(jobs, _TIMEOUT_SECONDS)
                for kernel, report in zip(kernels, found, strict=True):
                    reports.setdefault((kernel.spec.name, engine.name), []).append(report)
        if harness.REFERENCE in {engine.name for engine in chosen}:
            for kernel in kernels:
                _check(kernel.spec, chosen, folder)
    return [
        record
        for kernel in kernels
        for record in _records(kernel, chosen, reports, run_id=run_id, threads=threads)
    ]


def _outputs(folder: Path, kernel: str, engine: str) -> Path:
    return folder / f"{kernel}.{engine}.npz"


def _job(
    kernel: BuiltKernel,
    engine: Engine,
    folder: Path,
    threads: int,
    cpus: tuple[int, ...],
    seconds: float,
    *,
    keep: bool,
) -> Job:
    name, files = kernel.spec.name, kernel.files
    return Job(
        engine=engine.name,
        model=name,
        artifact=str(files.artifact),
        canonical=str(files.canonical),
        threads=threads,
        cpus=cpus,
        inputs=str(folder / f"{name}.npz"),
        outputs=str(_outputs(folder, name, engine.name)) if keep else None,
        report=str(folder / f"{name}.json"),
        seconds=seconds,
    )


def _check(spec: KernelSpec, chosen: Sequence[Engine], folder: Path) -> None:
    outputs = {engine.name: load_arrays(_outputs(folder, spec.name, engine.name)) for engine in chosen}
    try:
        harness.check_agreement(outputs, {}, spec.tolerance)
    except BenchmarkError as error:
        raise BenchmarkError(f"{spec.name}: {error.message}", hint=error.hint) from error


def _records(
    kernel: BuiltKernel,
    chosen: Sequence[Engine],
    reports: dict[tuple[str, str], list[Report]],
    *,
    run_id: str,
    threads: int,
) -> list[Record]:
    manifest = open_artifact(kernel.build.path, verify=False)
    subject = Subject(
        run_id=run_id,
        model=kernel_model(kernel.spec),
        manifest=manifest.manifest,
        digest=f"sha256:{hashlib.sha256(manifest.read(MANIFEST)).hexdigest()}",
        sizes={},
        threads=threads,
    )
    measured = [
        Measurement(engine=engine, reports=tuple(reports[kernel.spec.name, engine.name])) for engine in chosen
    ]
    return make_records(subject, measured)
