from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from assay.benchmarks import harness
from assay.benchmarks.arrays import save_arrays
from assay.benchmarks.job import Job, Report
from assay.errors import BenchmarkError, InterfaceError, UnknownNameError, UsageError
from assay.models.spec import Tolerance


class Workers:
    """Stands in for the processes: keeps the jobs, and answers with the engine's latency."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.offset = 0.0

    def __call__(self, job: Job, timeout: float) -> Report:
        self.jobs.append(job)
        latency = {"assay": 0.001, "onnxruntime": 0.002}[job.engine]
        if job.outputs:
            wrong = self.offset if job.engine == "assay" else 0.0
            save_arrays(job.outputs, {"y": np.full((1, 3), 1.0 + wrong, np.float32)})
        return Report(
            load_time=0.1,
            first_run_time=0.01,
            calls_per_sample=2,
            samples=(latency, latency * 1.1, latency * 0.9),
            peak_memory=1 << 20,
        )


@pytest.fixture
def workers(monkeypatch) -> Workers:
    found = Workers()
    monkeypatch.setattr(harness, "run_worker", found)
    return found


def bench(canonical, artifact, **options):
    return harness.bench(canonical.spec, artifact, canonical, run_id="run-1", **options)


def test_every_round_runs_every_engine_once_in_random_order(workers, canonical, artifact):
    bench(canonical, artifact, rounds=20)
    rounds = [tuple(job.engine for job in workers.jobs[start : start + 2]) for start in range(0, 40, 2)]
    assert {frozenset(pair) for pair in rounds} == {frozenset({"assay", "onnxruntime"})}
    assert len(Counter(rounds)) == 2
    assert len({(job.inputs, job.threads, job.cpus) for job in workers.jobs}) == 1


def test_the_order_follows_the_seed(workers, canonical, artifact):
    orders = []
    for seed in (1, 1, 2, 3, 4):
        workers.jobs.clear()
        bench(canonical, artifact, rounds=10, seed=seed)
        orders.append(tuple(job.engine for job in workers.jobs))
    assert orders[0] == orders[1]
    assert len(set(orders)) > 1


def test_records_of_every_metric(workers, canonical, artifact):
    records = bench(canonical, artifact, rounds=3, compile_seconds=4.5, sizes={"batch": 2})
    found = {(record.engine, record.metric): record for record in records}
    assert {metric for engine, metric in found if engine == "assay"} == {
        "latency",
        "load_time",
        "first_run_time",
        "peak_memory",
        "artifact_size",
        "compile_time",
    }
    latency = found["assay", "latency"]
    assert (latency.value, latency.unit) == (0.001, "s")
    assert latency.samples_per_round == (3, 3, 3)
    assert latency.calls_per_sample == 2
    assert latency.sizes == {"batch": 2}
    assert latency.interval == pytest.approx((0.001, 0.001))
    assert (latency.model, latency.target, latency.scheme) == ("tiny", "x86-64-v3", "f32")
    assert "onnxruntime" in latency.versions
    assert found["onnxruntime", "artifact_size"].value == canonical.path.stat().st_size
    assert found["assay", "compile_time"].samples == (4.5,)


def test_an_engine_that_computes_something_else_is_an_error(workers, canonical, artifact):
    workers.offset = 0.5
    with pytest.raises(BenchmarkError, match="assay and onnxruntime do not compute the same: Output 'y'"):
        bench(canonical, artifact, rounds=1)


def test_outputs_of_other_names_are_an_error():
    outputs = {"assay": {"z": np.ones(1)}, "onnxruntime": {"y": np.ones(1)}}
    with pytest.raises(BenchmarkError, match="assay gives the outputs z"):
        harness.check_agreement(outputs, {}, Tolerance())


def test_an_unknown_engine_and_an_unavailable_one(workers, canonical, artifact):
    with pytest.raises(UnknownNameError):
        bench(canonical, artifact, engines_to_run=["asay"])
    with pytest.raises(BenchmarkError, match="torch cannot be measured on tiny: tiny is not defined"):
        bench(canonical, artifact, engines_to_run=["torch"])
    assert workers.jobs == []


def test_an_artifact_alone_can_be_measured(workers, canonical, artifact):
    records = harness.bench(
        canonical.spec, artifact, None, run_id="run-1", engines_to_run=["assay"], rounds=1
    )
    assert {record.engine for record in records} == {"assay"}
    missing = harness.unavailable_engines(["assay", "onnxruntime"], "tiny", artifact, None)
    assert list(missing) == ["onnxruntime"]


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"threads": 0}, {"engines_to_run": []}, {"threads": 10_000}]
)
def test_counts_that_make_no_sense(workers, canonical, artifact, wrong):
    with pytest.raises(UsageError):
        bench(canonical, artifact, **wrong)


def test_a_size_out_of_range(workers, canonical, artifact):
    with pytest.raises(InterfaceError):
        bench(canonical, artifact, sizes={"batch": 100_000})


def test_steps_are_told(workers, canonical, artifact):
    from contextlib import nullcontext

    steps: list[str] = []

    class Steps:
        def step(self, name: str) -> nullcontext[None]:
            steps.append(name)
            return nullcontext()

    bench(canonical, artifact, rounds=2, progress=Steps())
    assert "tiny, 1 thread, assay: round 2 of 2" in steps


def test_real_processes_measure_onnx_runtime(canonical, artifact):
    records = bench(canonical, artifact, engines_to_run=["onnxruntime"], rounds=1, seconds_per_round=0.01)
    (latency,) = [record for record in records if record.metric == "latency"]
    assert 0 < latency.value < 1
