from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from assay.benchmarks import measurement
from assay.benchmarks.llm import LanguageFiles, harness
from assay.benchmarks.llm.harness import LanguageWorkload, make_prompts
from assay.benchmarks.llm.job import DecodeSteps, LanguageJob, LanguageReport
from assay.compile.quantize import tasks
from assay.compile.quantize.tasks import Effect
from assay.errors import BenchmarkError, UsageError
from assay.results.record import OF_ARTIFACTS
from assay.runtime.levels import choose_level
from assay.runtime.manifest import VerifiedCase

DECODER = SimpleNamespace(vocabulary=50)


class Engine:
    note = "a test's own"

    def __init__(self, name: str, reason: str | None = None) -> None:
        self.name, self.reason = name, reason

    def unavailable(self, files):
        return self.reason

    def version(self) -> str:
        return "1"

    def size_bytes(self, files) -> int:
        return 1000


class Workers:
    """Stands in for the processes: answers with the engine's time for a step."""

    def __init__(self) -> None:
        self.jobs: list[LanguageJob] = []
        self.turned = False

    def __call__(self, job: LanguageJob, timeout: float) -> LanguageReport:
        self.jobs.append(job)
        step = {"ours": 0.01, "theirs": 0.02}[job.engine]
        if job.logits:
            logits = np.arange(1.0, 51.0)
            np.save(
                job.logits, [-logits if self.turned and job.engine == "theirs" else logits] * job.sequences
            )
        decodes = tuple(
            DecodeSteps(depth=depth, seconds=(step,) * job.new_tokens, tokens=(1,)) for depth in job.depths
        )
        return LanguageReport(
            load_time=0.5, first_token_times=(step * 10,) * job.prefills, decodes=decodes, peak_memory=1 << 20
        )


@pytest.fixture
def workers(monkeypatch) -> Workers:
    found = Workers()
    engines = {name: Engine(name) for name in ("ours", "theirs")}
    engines["absent"] = Engine("absent", "it is not installed")
    monkeypatch.setattr(harness, "language_engines", lambda: engines)
    monkeypatch.setattr(harness, "_run", found)
    return found


@pytest.fixture
def bench(canonical, artifact, monkeypatch):
    opened = harness.open_artifact(artifact)

    class Manifest:
        decoder = DECODER

        def __getattr__(self, name):
            return getattr(opened.manifest, name)

    stand_in = SimpleNamespace(manifest=Manifest(), read=opened.read)
    monkeypatch.setattr(harness, "open_artifact", lambda path, verify: stand_in)
    files = LanguageFiles(name="tiny", artifact=Path(artifact), canonical=None, gguf=None, folder=None)

    def run(workload=None, engines=("ours", "theirs"), **options):
        return harness.bench_language(
            canonical.spec,
            files,
            workload or LanguageWorkload(prompt=8, new_tokens=4, rounds=3),
            run_id="run-1",
            engines_to_run=engines,
            **options,
        )

    return run


def test_rates_count_the_tokens_of_all_sequences(workers, bench):
    records = bench(LanguageWorkload(prompt=8, new_tokens=4, batches=(1, 4), depths=(20,), rounds=3))
    found = {
        (r.engine, r.metric, r.sizes["batch"], r.sizes.get("depth")): (r.value, r.unit)
        for r in records
        if r.metric in ("ttft", "prefill", "decode")
    }
    assert found["ours", "ttft", 1, None] == (pytest.approx(0.1), "s")
    assert found["ours", "prefill", 1, None] == (pytest.approx(80), "tokens/s")
    assert found["ours", "prefill", 4, None] == (pytest.approx(320), "tokens/s")
    assert found["ours", "decode", 1, 8] == (pytest.approx(100), "tokens/s")
    assert found["ours", "decode", 4, 20] == (pytest.approx(400), "tokens/s")
    assert found["theirs", "decode", 1, 8] == (pytest.approx(50), "tokens/s")


def test_quality_stands_beside_the_first_prompts(workers, bench, monkeypatch):
    case = VerifiedCase(
        sizes={}, output="logits", max_absolute_error=0.02, max_relative_error=0.1, cosine_similarity=0.999,
        absolute_tolerance=0.1, relative_tolerance=0.0,
    )  # fmt: skip
    level = choose_level(harness.open_artifact(Path("a"), verify=False).manifest)
    verified = msgspec.structs.replace(level.verification, cases=(case,))
    verified_level = msgspec.structs.replace(level, verification=verified)
    monkeypatch.setattr(measurement, "choose_level", lambda manifest, cpu: verified_level)
    effect = Effect(measure="perplexity", before=None, after=17.5, count=100)
    monkeypatch.setattr(tasks, "artifact_perplexity", lambda path, threads: effect)
    monkeypatch.setattr(harness, "OURS", "ours")
    workload = LanguageWorkload(prompt=8, new_tokens=4, batches=(2, 4), rounds=3)
    records = {
        r.metric: r for r in bench(workload, perplexity=True) if r.metric in OF_ARTIFACTS and r.unit == "1"
    }
    assert {metric: record.value for metric, record in records.items()} == pytest.approx(
        {
            "error": 0.2,
            "absolute_error": 0.02,
            "relative_error": 0.1,
            "cosine_distance": 0.001,
            "perplexity": 17.5,
        }
    )
    assert {tuple(record.sizes.items()) for record in records.values()} == {(("batch", 2), ("prompt", 8))}
    assert "100 tokens" in records["perplexity"].note
    assert {record.engine for record in records.values()} == {"ours"}


def test_engines_take_turns_on_the_same_prompts(workers, bench):
    bench(LanguageWorkload(prompt=8, new_tokens=4, rounds=12))
    pairs = [tuple(job.engine for job in workers.jobs[start : start + 2]) for start in range(0, 24, 2)]
    assert {frozenset(pair) for pair in pairs} == {frozenset({"ours", "theirs"})}
    assert len(Counter(pairs)) == 2
    assert len({job.prompts for job in workers.jobs}) == 1


def test_an_engine_whose_logits_differ_gives_no_figures(workers, bench):
    workers.turned = True
    with pytest.raises(BenchmarkError, match=r"theirs and ours do not compute the same.*-1\.0"):
        bench()


def test_an_engine_that_is_not_there_is_an_error(workers, bench):
    with pytest.raises(BenchmarkError, match=r"absent cannot be measured on .*: it is not installed"):
        bench(engines=("ours", "absent"))


def test_prompts_differ_by_sequence_and_follow_the_seed():
    first = make_prompts(3, 20, 50, 1)
    assert first == make_prompts(3, 20, 50, 1) != make_prompts(3, 20, 50, 2)
    assert len(set(first)) == 3
    assert all(0 <= token < 50 for prompt in first for token in prompt)


@pytest.mark.parametrize("options", [{"prompt": 0}, {"batches": (1, 0)}, {"rounds": 0}])
def test_nothing_to_measure_is_refused(options):
    with pytest.raises(UsageError, match="at least one"):
        LanguageWorkload(**options)


def test_depths_that_overlap_are_refused():
    with pytest.raises(UsageError, match="too close together"):
        LanguageWorkload(prompt=256, new_tokens=64, depths=(300,))
    assert LanguageWorkload(prompt=256, new_tokens=64, depths=(1024, 512, 256)).points == (256, 512, 1024)
