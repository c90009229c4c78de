"""The verb on a model whose kernels' times are given, and on a real artifact."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import assay.benchmarks.ceilings
import assay.runtime.session
from assay.benchmarks.ceilings import Ceilings, MemoryLevel
from assay.errors import MissingDependencyError
from assay.runtime.artifact import open_artifact, write_artifact
from assay.runtime.kernels import Kernel, Parameter, encode_kernels
from assay.runtime.session import check_inputs
from assay.runtime.timing import KernelCall, KernelTimes, TimedRun

CEILINGS = Ceilings(
    cpu="Test CPU",
    threads=1,
    date="2026-01-02T03:04:05Z",
    flops=1e9,
    levels=(MemoryLevel(name="DRAM", capacity=None, bandwidth=1e9),),
    triad=1e9,
    launch=1e-7,
)
ADD = Kernel(
    parameters=tuple(
        Parameter(name=name, dtype="float32", shape=("batch", 4), touched="batch*16") for name in ("x", "y")
    ),
    operations={"float": "batch*4000"},
    scheduled=False,
)


class TimedModel:
    """Stands in for a loaded artifact of one kernel, which takes 20 us."""

    def __init__(self, path: Path, threads: int) -> None:
        self.manifest = open_artifact(path).manifest
        self.level = self.manifest.levels[-1]
        self.inputs = self.manifest.inputs
        self.threads = threads

    def kernel_times(self, inputs: dict[str, Any], *, repeats: int) -> KernelTimes:
        x, _ = check_inputs(self.inputs, inputs)
        run = TimedRun(start=1.0, seconds=5e-5, starts=(1e-5,), durations=(2e-5,))
        return KernelTimes(
            threads=self.threads,
            calls=(KernelCall(kernel="add", arguments=(x.shape, x.shape), weights=(1,)),),
            own_calls=3,
            runs=(run,) * repeats,
            unobserved=(2.5e-5,) * repeats,
        )


@pytest.fixture
def artifact(tmp_path, manifest) -> Path:
    files: dict[str, bytes | Path] = {
        "lib/model.so": b"none",
        "lib/libtvm_runtime.so": b"none",
        "lib/model.kernels.json": encode_kernels({"add": ADD}),
    }
    return write_artifact(tmp_path / "artifact", manifest, files)


@pytest.fixture(autouse=True)
def timed(monkeypatch) -> list[bool]:
    """Replaces what loads and what measures; holds whether ceilings were to be measured again."""
    refreshed: list[bool] = []

    def find(threads: int, *, refresh: bool = False, progress: Any = None) -> Ceilings:
        refreshed.append(refresh)
        return CEILINGS

    def load(path: Path, *, threads: int | None = None, level: str | None = None) -> TimedModel:
        return TimedModel(path, threads or 1)

    monkeypatch.setattr(assay.benchmarks.ceilings, "find_ceilings", find)
    monkeypatch.setattr(assay.runtime, "load", load)
    return refreshed


def test_json(cli, artifact, timed):
    found = cli.json("profile", artifact, "--size", "batch=5", "--repeat", 3)
    assert (found["model"], found["sizes"], found["runs"]) == ("pair", {"batch": 5}, 3)
    assert found["kernel_seconds"] == pytest.approx(2e-5)
    assert found["outside_seconds"] == pytest.approx(5e-6)
    assert found["ceilings"]["date"] == CEILINGS.date
    assert found["weight_bytes"] == 5 * 16
    assert found["weight_bandwidth"] == pytest.approx(80 / 25e-6)
    assert found["weight_fraction"] == pytest.approx(0.0032)
    (kernel,) = found["kernels"]
    assert kernel["operations"] == 5 * 4000
    assert kernel["bytes"] == 2 * 5 * 16
    assert kernel["operations_per_second"] == pytest.approx(1e9)
    assert kernel["roof_fraction"] == pytest.approx(1.0)
    assert (kernel["bound"], kernel["scheduled"], kernel["share"]) == ("compute", False, 1.0)
    assert timed == [False]


def test_the_table_and_what_is_below_it(cli, artifact, timed):
    result = cli("profile", artifact, "--size", "batch=5", "--measure-ceilings")
    assert "add (left to TVM)" in result.stdout
    assert "100%" in result.stdout
    assert "20.0 µs of a run of 25.0 µs" in result.stdout
    assert "5.00 µs (20.0%), the virtual machine's 3 calls" in result.stdout
    assert "Weights: 8e-05 MB a run, 0.0032 GB/s: 0% of what DRAM gives." in result.stdout
    assert "Test CPU, 1 thread" in result.stdout
    assert timed == [True]


def test_trace_and_plot_are_written(cli, artifact, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the plot extra: pip install -e '.[plot]'")
    trace, plot = tmp_path / "t.json", tmp_path / "p.svg"
    result = cli("profile", artifact, "--trace", trace, "--plot", plot)
    assert {event["name"] for event in json.loads(trace.read_text())["traceEvents"]} >= {"run 1", "add"}
    assert "</svg>" in plot.read_text()
    assert str(trace) in result.stderr
    assert str(plot) in result.stderr


def test_inputs_from_files(cli, artifact, tmp_path):
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"x": [[1, 2, 3, 4]] * 3, "n": [1, 2, 3]}))
    assert cli.json("profile", artifact, "--input", path)["sizes"] == {"batch": 3}
    cli.error("profile", artifact, "--input", path, "--size", "batch=3", code=2)


def test_a_plot_that_cannot_be_drawn_is_told_before_anything_runs(cli, artifact, timed, monkeypatch):
    cli.error("profile", artifact, "--plot", "p.pdf", code=2)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "[plot]" in cli.error("profile", artifact, "--plot", "p.png", code=13)["hint"]
    assert timed == []


def test_without_the_compiler_the_ceilings_are_not_known(cli, artifact, monkeypatch):
    def missing(threads: int, **options: Any) -> Ceilings:
        raise MissingDependencyError("tvm", "compile")

    monkeypatch.setattr(assay.benchmarks.ceilings, "find_ceilings", missing)
    result = cli("profile", artifact)
    assert "ceilings are not known" in result.stderr
    assert "add" in result.stdout
    assert cli.json("profile", artifact)["kernels"][0]["bound"] is None
    cli.error("profile", artifact, "--measure-ceilings", code=13)


def test_an_artifact_that_describes_no_kernels(cli, make_artifact):
    result = cli("profile", make_artifact("plain"))
    assert "does not describe its kernels" in result.stderr
    assert "20.0 µs" in result.stdout


def test_descriptions_that_are_damaged(cli, artifact, tmp_path, manifest):
    files: dict[str, bytes | Path] = {
        "lib/model.so": b"none", "lib/libtvm_runtime.so": b"none", "lib/model.kernels.json": b"{}",
    }  # fmt: skip
    cli.error("profile", write_artifact(tmp_path / "other", manifest, files), code=9)


def test_what_is_no_artifact(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(assay.runtime, "load", assay.runtime.session.load)
    cli.error("profile", tmp_path / "gone", code=9)
