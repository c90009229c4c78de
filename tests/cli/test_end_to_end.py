"""The command as users run it: a file in, a verified artifact out, run and measured. Nothing is replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from assay.results.record import read_records

pytestmark = pytest.mark.slow


def assay(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "assay.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = relu(x @ w) over a batch of rows of 64."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Relu", ["p"], ["y"])],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("model") / "layer.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def artifact(model: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "layer"
    assert assay("build", model, "-o", path, "--cache", cache).stdout == f"{path}\n"
    return path


def test_run_gives_what_the_model_computes(artifact, model, tmp_path):
    import onnx
    from onnx import numpy_helper

    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assay("run", artifact, "--input", tmp_path / "x.npy", "-o", tmp_path / "out.npz")
    weights = numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_allclose(outputs["y"], np.maximum(x @ weights, 0), rtol=1e-4, atol=1e-4)


def test_verify_and_inspect(artifact, model, cache):
    found = json.loads(assay("verify", artifact, "--model", model, "--cache", cache, "--json").stdout)
    (cases,) = found["levels"].values()
    assert len({case["sizes"]["batch"] for case in cases}) > 1
    manifest = json.loads(assay("inspect", artifact, "--json").stdout)["manifest"]
    (level,) = manifest["levels"]
    assert level["executed"] == "native"
    assert len(level["verification"]["cases"]) == len(cases)


def test_bench_of_the_artifact_and_of_the_model(artifact, model, cache, tmp_path):
    options = ("--rounds", 1, "--seconds", 0.01, "--cache", cache, "--results", tmp_path, "--json")
    for subject in ((artifact, "--model", model), (model,)):
        records = json.loads(assay("bench", *subject, *options).stdout)
        latency = {r["engine"]: r["value"] for r in records if r["metric"] == "latency"}
        assert set(latency) == {"assay", "onnxruntime"}
        assert all(0 < value < 1 for value in latency.values())
    assert all(read_records(path) for path in tmp_path.iterdir())


def test_profile_finds_the_kernels_and_this_machines_ceilings(artifact, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trace, plot = tmp_path / "t.json", tmp_path / "p.svg"
    options = ("--size", "batch=50", "--threads", 1, "--trace", trace, "--plot", plot, "--json")
    found = json.loads(assay("profile", artifact, *options).stdout)
    product = max(found["kernels"], key=lambda kernel: kernel["operations"] or 0)
    assert product["operations"] == 2 * 50 * 64 * 32 + 50 * 32
    assert product["bytes"] == 4 * (50 * 64 + 64 * 32 + 50 * 32)
    assert product["roof_fraction"] > 0
    assert found["ceilings"]["flops"] > 1e8
    assert len(list((tmp_path / "cache" / "assay" / "ceilings").iterdir())) == 1
    names = {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert product["kernel"] in names
    assert "</svg>" in plot.read_text()


def test_bench_of_several_profiles_and_of_kernels(model, cache, tmp_path):
    options = ("--rounds", 1, "--seconds", 0.01, "--cache", cache, "--results", tmp_path, "--json")
    found = assay("bench", model, "--profile", "debug", "--profile", "release", *options).stdout
    records = json.loads(found)
    assert {(r["engine"], r["profile"]) for r in records if r["metric"] == "latency"} == {
        ("assay", "debug"), ("assay", "release"), ("onnxruntime", "debug"),
    }  # fmt: skip
    builds = {r["profile"]: r["value"] for r in records if r["metric"] == "compile_time"}
    assert builds.keys() == {"debug", "release"}
    engines = ("--engine", "assay", "--engine", "numpy", "--engine", "onnxruntime")
    records = json.loads(assay("bench", "kernels", "--only", "silu", *engines, *options).stdout)
    assert {record["engine"] for record in records} == {"assay", "numpy", "onnxruntime"}


def test_the_one_file_form_runs_too(model, cache, tmp_path):
    path = tmp_path / "layer.assay"
    assay("build", model, "-o", path, "--packed", "--cache", cache)
    assert path.is_file()
    outputs = json.loads(assay("run", path, "--size", "batch=3", "--json").stdout)["outputs"]
    assert outputs[0]["shape"] == [3, 32]


def test_another_model_than_that_of_the_artifact(artifact, tmp_path, cache):
    assert "another model" in assay("verify", artifact, "--model", "silero-vad", code=9).stderr


# An interrupt inside `exec` of a source text (a dataclass being made) ends Python 3.11 by the signal itself,
# also after it was caught: a shell shows 130 for both.
@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGINT, (130, -signal.SIGINT)), (signal.SIGKILL, (-signal.SIGKILL,))]
)
def test_a_build_that_is_stopped_leaves_no_artifact(model, tmp_path, number, codes):
    place = tmp_path / "out"
    command = [sys.executable, "-m", "assay.cli.main", "build", str(model), "-o", str(place / "layer")]
    process = subprocess.Popen(
        [*command, "--cache", str(tmp_path / "cache"), "-v"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell ignores interrupts for what it starts in the background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    # The first step that is over: the build is under way, and far from done.
    assert process.stderr.readline()
    time.sleep(1)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode in codes, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not (place / "layer").exists()
    # The same command succeeds afterwards.
    assay(*command[3:], "--cache", tmp_path / "cache")
    assert (place / "layer" / "manifest.json").is_file()
