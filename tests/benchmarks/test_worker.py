from __future__ import annotations

import time

import msgspec
import pytest

from assay.benchmarks.arrays import load_arrays, save_arrays
from assay.benchmarks.harness import run_worker
from assay.benchmarks.job import Job, Report
from assay.benchmarks.machine import choose_cpus
from assay.benchmarks.sampling import take_samples
from assay.errors import BenchmarkError
from assay.models.inputs import make_inputs


@pytest.fixture
def job(tmp_path, canonical, artifact) -> Job:
    save_arrays(tmp_path / "inputs.npz", make_inputs(canonical.spec))
    return Job(
        engine="onnxruntime",
        model="tiny",
        artifact=str(artifact),
        canonical=str(canonical.path),
        threads=1,
        cpus=choose_cpus(1),
        inputs=str(tmp_path / "inputs.npz"),
        outputs=str(tmp_path / "outputs.npz"),
        report=str(tmp_path / "report.json"),
        seconds=0.02,
    )


def test_a_round_of_onnx_runtime(job, canonical):
    report = run_worker(job)
    assert sum(report.samples) * report.calls_per_sample >= 0.015
    assert len(report.samples) >= job.least_samples
    assert min(report.samples) > 0
    assert report.load_time > 0
    assert report.first_run_time > 0
    assert report.peak_memory is None or report.peak_memory > 10 << 20
    inputs = load_arrays(job.inputs)
    (found,) = load_arrays(job.outputs).values()
    assert found == pytest.approx(inputs["x"].sum(axis=1, keepdims=True).repeat(3, axis=1) + 1)


def test_an_error_of_assay_is_its_message(job):
    broken = msgspec.structs.replace(job, engine="assay")
    with pytest.raises(BenchmarkError, match=r"assay failed on tiny: \S"):
        run_worker(broken)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('the sky fell')", "onnxruntime failed on tiny: RuntimeError: the sky fell"),
        ("import os; os.kill(os.getpid(), 11)", "its process was ended by SIGSEGV"),
        ("import os; os._exit(3)", "it wrote nothing to stderr"),
        ("import os; os._exit(0)", "left no report"),
        ("import time; time.sleep(60)", "did not finish one round within 3 s"),
    ],
)
def test_a_worker_that_fails_is_a_benchmark_error(job, tmp_path, monkeypatch, code, message):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "onnxruntime.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    start = time.monotonic()
    with pytest.raises(BenchmarkError, match=message):
        run_worker(job, timeout=3)
    assert time.monotonic() - start < 30


def test_the_current_folder_is_not_imported_from(job, tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("raise RuntimeError('wrong module')")
    monkeypatch.chdir(tmp_path)
    assert isinstance(run_worker(job), Report)


def test_a_fast_call_is_timed_several_at_once():
    calls, samples = take_samples(lambda: None, 0.02, 3)
    assert calls > 1
    assert len(samples) < 5_000


def test_a_slow_call_still_gives_the_least_number_of_samples():
    calls, samples = take_samples(lambda: time.sleep(0.03), 0.0, 3)
    assert (calls, len(samples)) == (1, 3)
    assert min(samples) >= 0.03
