"""Measure engines on one language model: rounds of fresh processes, one at a time, in random order."""

from __future__ import annotations

import hashlib
import itertools
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from assay.benchmarks.llm import LanguageEngine, LanguageFiles, language_engines
from assay.benchmarks.llm.job import LanguageJob, LanguageReport
from assay.benchmarks.machine import choose_cpus
from assay.benchmarks.measurement import RecordMaker, Subject
from assay.benchmarks.process import run_module
from assay.errors import BenchmarkError, UsageError
from assay.models.spec import ModelSpec
from assay.progress import Progress, SilentProgress
from assay.results.record import Record
from assay.runtime.artifact import MANIFEST, open_artifact

__all__ = ["LanguageWorkload", "bench_language", "make_prompts"]

OURS = "assay"
_TIMEOUT_SECONDS = 900.0
# Engines quantize activations, and caches, in ways of their own; a wrong engine is far below.
_LEAST_COSINE = 0.98


@dataclass(frozen=True, kw_only=True)
class LanguageWorkload:
    """What every engine does.

    ``prompt`` tokens go into each of ``batch`` sequences, once for each element of ``batches``; then
    ``new_tokens`` are decoded after the prompt and again at each of ``depths`` tokens in the cache.
    ``prefills`` prompts are timed in each of ``rounds`` processes.
    """

    prompt: int = 256
    new_tokens: int = 64
    depths: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1,)
    prefills: int = 3
    rounds: int = 5

    def __post_init__(self) -> None:
        if min(self.prompt, self.new_tokens, self.prefills, self.rounds, *self.batches) < 1:
            raise UsageError("A benchmark needs at least one token, one prefill, one sequence and one round.")
        points = self.points
        if any(later < earlier + self.new_tokens for earlier, later in itertools.pairwise(points)):
            raise UsageError(
                f"The depths {', '.join(map(str, self.depths))} lie too close together, or before the end of "
                f"the prompt of {self.prompt} tokens: {self.new_tokens} tokens are decoded at each."
            )

    @property
    def points(self) -> tuple[int, ...]:
        """Tokens in the cache where decoding starts: the prompt's length, then the depths."""
        return (self.prompt, *(depth for depth in sorted(set(self.depths)) if depth != self.prompt))


def make_prompts(count: int, length: int, vocabulary: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """``count`` prompts of ``length`` token ids drawn from ``seed``."""
    generator = random.Random(seed)
    return tuple(tuple(generator.randrange(vocabulary) for _ in range(length)) for _ in range(count))


def bench_language(
    model: ModelSpec,
    files: LanguageFiles,
    workload: LanguageWorkload,
    *,
    run_id: str,
    engines_to_run: Sequence[str],
    threads: int = 1,
    seed: int = 0,
    timeout: float = _TIMEOUT_SECONDS,
    compile_seconds: float | None = None,
    perplexity: bool = False,
    progress: Progress | None = None,
) -> list[Record]:
    """Records of the metrics ttft, prefill, decode, load_time, peak_memory and artifact_size of every engine.

    Of ours also how near the artifact's logits were to the reference's when it was verified, and with
    ``perplexity`` that of the artifact, on the text of the reports of ``assay quantize``.

    Raises BenchmarkError when an engine is not available, fails, hangs for ``timeout`` seconds, or gives
    logits after the prompt that point elsewhere than ours; UsageError for more threads than CPUs.
    """
    progress = progress or SilentProgress()
    files = replace(files, artifact=files.artifact.absolute())
    chosen = [language_engines()[name] for name in dict.fromkeys(engines_to_run)]
    if not chosen:
        raise UsageError("A benchmark needs at least one engine.")
    for engine in chosen:
        reason = engine.unavailable(files)
        if reason is not None:
            raise BenchmarkError(f"{engine.name} cannot be measured on {model.name}: {reason}.")
    opened = open_artifact(files.artifact, verify=False)
    decoder = opened.manifest.decoder
    if decoder is None:
        raise UsageError(f"{model.name} is not a decoder: measure it with assay bench {model.name}.")
    cpus = choose_cpus(threads)
    generator = random.Random(seed)
    subject = Subject(
        run_id=run_id,
        model=model,
        manifest=opened.manifest,
        digest=f"sha256:{hashlib.sha256(opened.read(MANIFEST)).hexdigest()}",
        sizes={},
        threads=threads,
    )
    make = RecordMaker(subject)
    records: list[Record] = []
    for batch in workload.batches:
        prompts = make_prompts(batch, workload.prompt, decoder.vocabulary, seed)
        reports: dict[str, list[LanguageReport]] = {engine.name: [] for engine in chosen}
        with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
            folder = Path(name)
            for index in range(workload.rounds):
                for engine in generator.sample(chosen, len(chosen)):
                    job = LanguageJob(
                        engine=engine.name,
                        model=files.name,
                        artifact=str(files.artifact),
                        canonical=str(files.canonical.absolute()) if files.canonical else None,
                        gguf=str(files.gguf.absolute()) if files.gguf else None,
                        folder=str(files.folder.absolute()) if files.folder else None,
                        threads=threads,
                        cpus=cpus,
                        sequences=batch,
                        prompts=prompts,
                        depths=workload.points,
                        new_tokens=workload.new_tokens,
                        prefills=workload.prefills,
                        logits=str(_logits(folder, engine)) if index == 0 else None,
                        report=str(folder / "report.json"),
                    )
                    what = f"{model.name}, threads: {threads}, batch: {batch}, {engine.name}"
                    with progress.step(f"{what}: round {index + 1} of {workload.rounds}"):
                        reports[engine.name].append(_run(job, timeout))
            _check(chosen, folder)
        for engine in chosen:
            records += _records(make, engine, reports[engine.name], workload, batch, files)
    if OURS in {engine.name for engine in chosen}:
        ours = language_engines()[OURS]
        # Beside the first prompts' times: the same at any size.
        first = {"batch": workload.batches[0], "prompt": workload.prompt}
        records += make.quality(ours, ours.version(), sizes=first)
        if compile_seconds is not None:
            records.append(make.record(ours, ours.version(), "compile_time", [(compile_seconds,)]))
        if perplexity:
            with progress.step(f"{model.name}: measure perplexity"):
                records.append(_perplexity(make, ours, files, threads, first))
    return records


def _perplexity(
    make: RecordMaker, ours: LanguageEngine, files: LanguageFiles, threads: int, sizes: Mapping[str, int]
) -> Record:
    from assay.compile.quantize.tasks import artifact_perplexity

    effect = artifact_perplexity(files.artifact, threads=threads)
    note = f"over {effect.count} tokens of the text of assay quantize"
    return make.record(ours, ours.version(), "perplexity", [(effect.after,)], sizes=sizes, note=note)


def _logits(folder: Path, engine: LanguageEngine) -> Path:
    return folder / f"{engine.name}.npy"


def _run(job: LanguageJob, timeout: float) -> LanguageReport:
    report = Path(job.report)
    report.unlink(missing_ok=True)
    where = f"{job.engine} failed on {job.model}"
    run_module("assay.benchmarks.llm.worker", msgspec.json.encode(job), timeout, lambda: where)
    try:
        return msgspec.json.decode(report.read_bytes(), type=LanguageReport)
    except (OSError, msgspec.MsgspecError) as error:
        raise BenchmarkError(f"{where}: its worker left no report.") from error


def _check(chosen: Sequence[LanguageEngine], folder: Path) -> None:
    """Raise BenchmarkError where an engine's logits after the prompts differ from the first one's."""
    import numpy as np

    first, *others = chosen
    expected = np.load(_logits(folder, first)).astype(np.float64)
    for engine in others:
        found = np.load(_logits(folder, engine)).astype(np.float64)
        if found.shape != expected.shape:
            raise BenchmarkError(
                f"{engine.name} gives logits of shape {found.shape}; {first.name} of {expected.shape}."
            )
        lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
        cosine = float(np.min(np.sum(found * expected, axis=-1) / np.maximum(lengths, 1e-30)))
        if not cosine >= _LEAST_COSINE:
            raise BenchmarkError(
                f"{engine.name} and {first.name} do not compute the same: the cosine similarity of their "
                f"logits after the prompt is {cosine:.4f}, below {_LEAST_COSINE}.",
                hint="A figure of a wrong engine means nothing, so none was recorded.",
            )


def _records(
    make: RecordMaker,
    engine: LanguageEngine,
    reports: Sequence[LanguageReport],
    workload: LanguageWorkload,
    batch: int,
    files: LanguageFiles,
) -> list[Record]:
    version = engine.version()
    sizes = {"batch": batch, "prompt": workload.prompt}
    first = [report.first_token_times for report in reports]
    rates = [[batch * workload.prompt / seconds for seconds in times] for times in first]
    records = [
        make.record(engine, version, "ttft", first, sizes=sizes),
        make.record(engine, version, "prefill", rates, sizes=sizes),
    ]
    for index, depth in enumerate(workload.points):
        steps = [[batch / s for s in report.decodes[index].seconds] for report in reports]
        at: Mapping[str, int] = {"batch": batch, "depth": depth}
        records.append(make.record(engine, version, "decode", steps, sizes=at))
    loads = [(report.load_time,) for report in reports]
    records.append(make.record(engine, version, "load_time", loads, sizes=sizes))
    peaks = [(float(report.peak_memory),) for report in reports if report.peak_memory is not None]
    if peaks:
        records.append(make.record(engine, version, "peak_memory", peaks, sizes=sizes))
    size = engine.size_bytes(files)
    if size is not None:
        records.append(make.record(engine, version, "artifact_size", [(float(size),)], sizes=sizes))
    return records
