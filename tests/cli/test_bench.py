"""The verb with builds and worker processes replaced at their seams."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import assay.compile.build
from assay.benchmarks import harness
from assay.benchmarks.arrays import save_arrays
from assay.benchmarks.job import Job, Report
from assay.cli.sets import models_of
from assay.errors import UnsupportedOperatorError
from assay.models.registry import models
from assay.results.record import read_records


class Lab:
    """Artifacts without a build and measurements without a process."""

    def __init__(self, make_artifact: Any) -> None:
        self.make_artifact = make_artifact
        self.built: list[str] = []
        self.jobs: list[Job] = []
        self.errors: dict[str, BaseException] = {}
        self.build_seconds: float | None = 2.5

    def build(self, spec: Any, **options: Any) -> Any:
        self.built.append(spec.name)
        if spec.name in self.errors:
            raise self.errors[spec.name]
        path = self.make_artifact(spec.name)
        canonical = SimpleNamespace(spec=spec, path=path.with_name(f"{spec.name}.onnx"))
        canonical.path.write_bytes(b"model")
        return SimpleNamespace(path=path, canonical=canonical, build_seconds=self.build_seconds)

    def work(self, job: Job, timeout: float) -> Report:
        self.jobs.append(job)
        if len(self.jobs) == self.errors.get("job"):
            raise KeyboardInterrupt
        latency = {"assay": 0.001, "onnxruntime": 0.002, "torch": 0.004}[job.engine]
        if job.outputs:
            save_arrays(Path(job.outputs), {"y": np.ones(3, np.float32)})
        return Report(
            load_time=0.1, first_run_time=0.01, calls_per_sample=1, samples=(latency,) * 3, peak_memory=1000
        )


@pytest.fixture
def lab(make_artifact, monkeypatch) -> Lab:
    found = Lab(make_artifact)
    monkeypatch.setattr(assay.compile.build, "build_artifact", found.build)
    monkeypatch.setattr(harness, "run_worker", found.work)
    return found


@pytest.fixture
def bench(cli, tmp_path):
    """Arguments of a short benchmark, with its records in a folder of the test."""
    return lambda *arguments: ("bench", *arguments, "--rounds", 3, "--results", tmp_path / "results")


def test_json_is_a_list_of_records_with_what_scripts_rely_on(cli, lab, bench, tmp_path):
    found = cli.json(*bench("silero-vad"))
    names = {
        "model",
        "target",
        "scheme",
        "profile",
        "engine",
        "threads",
        "metric",
        "unit",
        "value",
        "samples",
    }
    assert all(names <= record.keys() for record in found)
    latency = {record["engine"]: record for record in found if record["metric"] == "latency"}
    assert latency["assay"]["value"] == 0.001
    assert latency["assay"]["unit"] == "s"
    assert len(latency["onnxruntime"]["samples"]) == 9
    assert [record["value"] for record in found if record["metric"] == "compile_time"] == [2.5]
    (path,) = (tmp_path / "results").iterdir()
    assert len(read_records(path)) == len(found)


def test_the_table_has_the_ratio(cli, lab, bench, tmp_path):
    result = cli(*bench("silero-vad"))
    assert "2.00 to 2.00" in result.stdout
    assert "ONNX Runtime / ours" in result.stdout
    assert "peak memory" in result.stdout
    assert "records: " in result.stderr
    markdown = cli(*bench("silero-vad", "--markdown")).stdout
    assert "| silero-vad, batch=1 | assay | 1 | 1.00 ms |" in markdown


def test_a_build_whose_time_is_not_known_has_no_compile_time(cli, lab, bench):
    lab.build_seconds = None
    assert "compile_time" not in {record["metric"] for record in cli.json(*bench("silero-vad"))}


def test_threads_and_engines_may_be_repeated(cli, lab, bench, monkeypatch):
    monkeypatch.setattr("assay.benchmarks.places.choose_cpus", lambda count: tuple(range(count)))
    monkeypatch.setattr("assay.benchmarks.machine.choose_cpus", lambda count: tuple(range(count)))
    found = cli.json(*bench("silero-vad", "--threads", 1, "--threads", 2, "--engine", "assay"))
    assert {(record["engine"], record["threads"]) for record in found} == {("assay", 1), ("assay", 2)}
    assert [job.threads for job in lab.jobs] == [1, 1, 1, 2, 2, 2]
    assert lab.built == ["silero-vad"]


def test_a_model_that_fails_has_its_row_and_the_others_go_on(cli, lab, bench):
    lab.errors["silero-vad"] = UnsupportedOperatorError("Scan cannot be compiled.")
    arguments = bench("silero-vad", "basic-pitch")
    result = cli(*arguments, code=6)
    assert "Scan cannot be compiled." in result.stdout
    assert "basic-pitch" in result.stdout
    found = cli(*arguments, "--json", code=6)
    assert {record["model"] for record in json.loads(found.stdout)} == {"basic-pitch"}
    assert json.loads(found.stderr)["error"]["kind"] == "UnsupportedOperatorError"


def test_an_engine_that_is_not_available_has_its_row_with_the_reason(cli, lab, bench):
    result = cli(*bench("silero-vad", "--engine", "assay", "--engine", "torch"))
    assert "not available: silero-vad is not defined in PyTorch" in result.stdout
    assert {job.engine for job in lab.jobs} == {"assay"}
    error = cli.error(*bench("silero-vad", "--engine", "torch"), code=14)
    assert "No engine" in error["message"]


def test_what_was_measured_before_an_interrupt_is_kept(cli, lab, bench, tmp_path):
    lab.errors["job"] = 8  # type: ignore[assignment]
    cli(*bench("silero-vad", "basic-pitch"), code=130)
    (path,) = (tmp_path / "results").iterdir()
    assert {record.model for record in read_records(path)} == {"silero-vad"}


def test_results_that_cannot_be_written(cli, lab, tmp_path):
    (tmp_path / "file").write_text("")
    cli.error("bench", "silero-vad", "--rounds", 1, "--results", tmp_path / "file" / "x", code=12)


def test_wrong_names_are_told_before_anything_is_built(cli, lab, bench):
    for arguments in (["silero-vad", "resnet19"], ["silero-vad", "--target", "x87"]):
        cli.error(*bench(*arguments), code=3)
    cli.error(*bench("silero-vad", "--threads", 9999), code=2)
    assert lab.built == []


def test_a_package_for_statistics_is_missed_before_anything_is_built(cli, lab, bench, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "scipy" else found(name, *rest)
    )
    assert "scipy" in cli.error(*bench("silero-vad"), code=13)["message"]
    assert lab.built == []


def test_an_artifact_of_an_unknown_model_is_measured_alone(cli, lab, bench, make_artifact):
    result = cli(*bench(make_artifact()))
    assert "not available: the model that the artifact was built from is not known" in result.stdout
    assert {job.engine for job in lab.jobs} == {"assay"}
    assert lab.built == []


def test_sets():
    everything = {spec.name for spec in models().values() if spec.decoder is None}
    assert set(models_of("all")) == everything < set(models())
    assert set(models_of("default")) | set(models_of("torch")) == everything
    assert {"silero-vad", "basic-pitch", "light-squeezenet"} <= set(models_of("default"))
    assert "resnet18" in models_of("torch")


def test_a_set_is_measured_whole(cli, lab, bench, monkeypatch):
    monkeypatch.setitem(
        __import__("assay.cli.sets", fromlist=["SETS"]).SETS, "default", lambda spec: "audio" in spec.tags
    )
    cli(*bench("--set", "default", "silero-vad"))
    assert lab.built == ["silero-vad", "basic-pitch"]
