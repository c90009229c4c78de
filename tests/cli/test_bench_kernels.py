"""`assay bench kernels` with builds and processes replaced at their seams."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import assay.compile.build
from assay.benchmarks import harness
from assay.benchmarks.arrays import save_arrays
from assay.benchmarks.job import Job, Report
from assay.results.record import read_records

LATENCIES = {"assay": 0.001, "onnxruntime": 0.002, "numpy": 0.004, "torch": 0.0005, "torch-compile": 0.001}


@pytest.fixture
def jobs(make_artifact, monkeypatch) -> list[Job]:
    """Every job that a worker was given."""
    done: list[Job] = []

    def build(spec: Any, **options: Any) -> Any:
        path = make_artifact(spec.name)
        canonical = SimpleNamespace(spec=spec, path=path.with_name(f"{spec.name}.onnx"))
        canonical.path.write_bytes(b"model")
        return SimpleNamespace(path=path, canonical=canonical)

    def work(jobs: list[Job], timeout: float) -> list[Report]:
        done.extend(jobs)
        for job in jobs:
            if job.outputs:
                save_arrays(Path(job.outputs), {"y": np.ones(3, np.float32)})
        samples = (LATENCIES[jobs[0].engine],) * 3
        return [
            Report(load_time=0.1, first_run_time=0.1, calls_per_sample=1, samples=samples, peak_memory=None)
        ] * len(jobs)

    monkeypatch.setattr(assay.compile.build, "build_artifact", build)
    monkeypatch.setattr(harness, "run_workers", work)
    return done


@pytest.fixture
def bench(tmp_path):
    return lambda *arguments: ("bench", "kernels", *arguments, "--results", tmp_path / "results")


def test_json_is_a_list_of_records(cli, jobs, bench, tmp_path):
    found = cli.json(*bench("--only", "silu", "--engine", "assay", "--engine", "onnxruntime"))
    assert {(record["model"], record["engine"], record["value"]) for record in found} == {
        ("silu", "assay", 0.001), ("silu", "onnxruntime", 0.002),
    }  # fmt: skip
    assert [len(record["samples"]) for record in found] == [9, 9]
    (path,) = (tmp_path / "results").iterdir()
    assert len(read_records(path)) == 2


def test_the_table_has_every_engine_and_our_rate(cli, jobs, bench):
    names = ("assay", "onnxruntime", "numpy")
    options = [word for name in names for word in ("--engine", name)]
    result = cli(*bench("--only", "matmul-512", *options, "--markdown"))
    assert "| model | threads | ours | GFLOP/s | ONNX Runtime / ours | NumPy / ours |" in result.stdout
    assert "| matmul-512 | 1 | 1.00 ms | 268 | 2.00 (2.00 to 2.00) | 4.00 (4.00 to 4.00) |" in result.stdout
    assert "matmul-512" in cli(*bench("--only", "matmul-512", *options)).stdout


def test_a_family_with_several_threads(cli, jobs, bench, monkeypatch):
    for module in ("kernel_bench", "machine"):
        monkeypatch.setattr(f"assay.benchmarks.{module}.choose_cpus", lambda count: tuple(range(count)))
    arguments = ("--only", "rows", "--threads", 1, "--threads", 2, "--engine", "assay", "--rounds", 1)
    found = cli.json(*bench(*arguments))
    assert {record["threads"] for record in found} == {1, 2}
    assert {job.model for job in jobs} == {"rms-norm", "softmax", "silu", "rotary-embedding"}
    assert "softmax" in cli(*bench(*arguments)).stdout


def test_an_engine_that_is_not_installed_is_left_out(cli, jobs, bench, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    result = cli(*bench("--only", "silu"))
    assert "torch is left out: torch is not installed" in result.stderr
    assert {job.engine for job in jobs} == {"assay", "onnxruntime", "numpy"}
    assert "No engine" in cli.error(*bench("--only", "silu", "--engine", "torch"), code=14)["message"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--only", "slu"], 3),
        (["--engine", "onx"], 3),
        (["--threads", "9999"], 2),
        (["--set", "default"], 2),
        (["--size", "batch=2"], 2),
        (["--profile", "debug"], 2),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_built(cli, jobs, bench, arguments, code):
    cli.error(*bench(*arguments), code=code)
    assert jobs == []


def test_only_is_for_kernels(cli):
    assert "--only" in cli.error("bench", "silero-vad", "--only", "silu", code=2)["message"]
