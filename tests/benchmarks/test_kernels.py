"""Reference kernels: every definition of one computes the same, and engines are measured on them in turn."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assay.benchmarks import harness, kernel_bench
from assay.benchmarks.arrays import save_arrays
from assay.benchmarks.job import Job, Report
from assay.benchmarks.kernels import choose_kernels, kernel_model, kernels
from assay.benchmarks.peers import ModelFiles, engines
from assay.errors import BenchmarkError, UnknownNameError, UsageError

NAMES = list(kernels())
# The largest take seconds in NumPy's and the reference's hands, and are the smaller ones' again.
SMALL = [name for name in NAMES if name not in {"matmul-1024", "matmul-2048", "matrix-matrix"}]


def arrays_of(name: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        key: generator.standard_normal(shape, np.float32) for key, shape in kernels()[name].inputs.items()
    }


def test_the_suite_is_whole():
    assert {f"matmul-{size}" for size in (64, 128, 256, 512, 1024, 2048)} <= set(NAMES)
    assert {"matmul-8x64x64", "matmul-16x128x128", "matmul-32x64x64"} <= set(NAMES)
    assert {"attention-qk-4x8x64x64", "attention-pv-4x8x64x64"} <= set(NAMES)
    eight = {
        "matrix-vector", "matrix-matrix", "rms-norm", "softmax", "silu", "rotary-embedding",
        "attention-scores", "weighted-row-sum",
    }  # fmt: skip
    assert eight <= set(NAMES)


@pytest.mark.parametrize("name", SMALL)
def test_onnx_and_numpy_agree(name, tmp_path):
    import onnx
    import onnxruntime

    spec = kernels()[name]
    path = kernel_model(spec).provider.onnx_path(tmp_path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    inputs = arrays_of(name)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    found = spec.numpy(*inputs.values())
    assert found.shape == spec.output
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=spec.tolerance.absolute, rtol=spec.tolerance.relative)


@pytest.mark.torch
@pytest.mark.parametrize("name", SMALL)
def test_torch_and_numpy_agree(name, tmp_path):
    spec, inputs = kernels()[name], arrays_of(name)
    files = ModelFiles(name=name, artifact=tmp_path, canonical=None)
    found = engines()["torch"].load(files, 1).run(inputs)["y"]
    expected = engines()["numpy"].load(files, 1).run(inputs)["y"]
    np.testing.assert_allclose(found, expected, atol=spec.tolerance.absolute, rtol=spec.tolerance.relative)


def test_work_is_counted_by_the_definition():
    spec = kernels()["matmul-256"]
    assert spec.operations == 2 * 256**3
    assert spec.touched == 3 * 4 * 256**2
    assert all(math.prod(each.output) <= each.operations for each in kernels().values())


def test_kernels_are_chosen_by_name_and_family():
    assert [spec.name for spec in choose_kernels(())] == NAMES
    assert {spec.family for spec in choose_kernels(("rows",))} == {"rows"}
    assert [spec.name for spec in choose_kernels(("silu", "silu", "softmax"))] == ["silu", "softmax"]
    with pytest.raises(UnknownNameError) as caught:
        choose_kernels(("matmul-63",))
    assert "matmul-64" in (caught.value.hint or "")


class Workers:
    """Stands in for processes: every engine takes its own time, and computes y = 1 unless told otherwise."""

    def __init__(self) -> None:
        self.batches: list[list[Job]] = []
        self.wrong: str | None = None

    def run(self, jobs: list[Job], timeout: float) -> list[Report]:
        self.batches.append(jobs)
        for job in jobs:
            if job.outputs:
                value = 2.0 if job.engine == self.wrong else 1.0
                save_arrays(Path(job.outputs), {"y": np.full(3, value, np.float32)})
        seconds = {"assay": 0.001, "onnxruntime": 0.002, "numpy": 0.004}[jobs[0].engine]
        return [
            Report(
                load_time=0.0,
                first_run_time=0.0,
                calls_per_sample=1,
                samples=(seconds,) * 3,
                peak_memory=None,
            )
            for _ in jobs
        ]


@pytest.fixture
def workers(monkeypatch) -> Workers:
    found = Workers()
    monkeypatch.setattr(harness, "run_workers", found.run)
    return found


@pytest.fixture
def built(artifact, canonical) -> list[Any]:
    build = SimpleNamespace(path=artifact, canonical=canonical)
    return [
        kernel_bench.BuiltKernel(spec=kernels()[name], build=build)  # type: ignore[arg-type]
        for name in ("silu", "matmul-64")
    ]


def bench(built: list[Any], **changes: Any) -> Any:
    options: dict[str, Any] = {
        "run_id": "run-1",
        "engines_to_run": ["assay", "onnxruntime", "numpy"],
        "threads": 1,
        "rounds": 3,
        "seconds_per_round": 0.01,
    }
    return kernel_bench.bench_kernels(built, **{**options, **changes})


def test_a_process_runs_all_kernels_of_one_engine(workers, built):
    records = bench(built)
    assert len(workers.batches) == 9
    for start in (0, 3, 6):
        assert {batch[0].engine for batch in workers.batches[start : start + 3]} == {
            "assay", "onnxruntime", "numpy",
        }  # fmt: skip
    for batch in workers.batches:
        assert len({job.engine for job in batch}) == 1
        assert [job.model for job in batch] == ["silu", "matmul-64"]
    assert {record.metric for record in records} == {"latency"}
    found = {(record.model, record.engine): record.value for record in records}
    assert found["silu", "assay"] == 0.001
    assert found["matmul-64", "numpy"] == 0.004
    assert len(found) == 6


def test_an_engine_that_computes_something_else(workers, built):
    workers.wrong = "numpy"
    with pytest.raises(BenchmarkError, match="silu: numpy and onnxruntime do not compute the same"):
        bench(built)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"threads": 0}, {"engines_to_run": []}])
def test_counts_that_make_no_sense(workers, built, wrong):
    with pytest.raises(UsageError):
        bench(built, **wrong)
    with pytest.raises(UsageError):
        bench([])


def test_real_processes_measure_numpy(built):
    records = bench(built, engines_to_run=["numpy"], rounds=1)
    assert [record.model for record in records] == ["silu", "matmul-64"]
    assert all(0 < record.value < 10 for record in records)
