from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from assay.ci.gate import instructions
from assay.ci.gate.instructions import count_instructions, kernel_instructions, perf_counts
from assay.ci.gate.processes import Contender, run_under
from assay.errors import BenchmarkError

CALLGRIND = """# callgrind format
positions: line
events: Ir
summary: 1000

ob=(1) /usr/bin/python3
fl=(1) python.c
fn=(1) main
10 400
cob=(2) {folder}/a/lib/model.so
cfn=(2) __tvm_ffi_conv
calls=1 0
11 99999

ob=(2)
fl=(2) ???
fn=(2)
0 151
+3 4
cfn=(3) conv_compute_
calls=1 0
* 59193
0 7

fn=(3)
0 59193

fn=(4) __tvm_ffi_relu
0 10

ob=(5) {folder}/b/lib/model.so
fn=(2)
0 20
cob=(6) /lib/libm.so
cfn=(7) exp
calls=4 0
0 80

ob=(6)
fn=(7)
0 80
"""


def test_kernels_count_with_what_they_call(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    lines = CALLGRIND.format(folder=tmp_path).splitlines()
    found = kernel_instructions(lines, {"first": tmp_path / "a", "second": tmp_path / "b", "no": tmp_path})
    assert found == {"first": 151 + 4 + 59193 + 7 + 10, "second": 100}


@pytest.mark.parametrize("text", ["", "nonsense\nob=\nfn=(1)\n0\n+1 2 3\n"])
def test_output_that_is_cut_or_nonsense_gives_nothing(text, tmp_path):
    assert kernel_instructions(text.splitlines(), {"net": tmp_path}) == {}


def program(folder: Path, name: str, body: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("1234,,instructions:u,100,100.00,,", True),
        ("<not supported>,,instructions:u,0,100.00,,", False),
        ("<not counted>,,instructions:u,0,0.00,,", False),
        ("", False),
    ],
)
def test_perf_counts_only_where_the_cpu_does(tmp_path, line, counts):
    assert perf_counts(program(tmp_path, "perf", f"echo '{line}' >&2")) is counts


def test_no_perf(tmp_path):
    assert not perf_counts(str(tmp_path / "perf"))


@pytest.fixture
def contender(tmp_path) -> Contender:
    return Contender(
        python=Path(sys.executable),
        artifact=tmp_path / "artifact",
        inputs=tmp_path / "inputs.npz",
        threads=2,
        cpus=(0, 1),
    )


def test_perf_gives_the_difference_between_few_and_many_runs(tmp_path, contender, monkeypatch):
    monkeypatch.setattr(instructions, "perf_counts", lambda: True)

    def run(prefix, contenders, *, calls, timeout):
        (one,) = contenders
        assert (one.threads, one.cpus, one.environment["PYTHONHASHSEED"]) == (1, (0,), "0")
        out = Path(prefix[prefix.index("-o") + 1])
        each = 500 if one.artifact.name == "artifact" else 505
        out.write_text(f"# started\n\n{10**9 + each * calls},,instructions:u,1,100.00,,\n")

    monkeypatch.setattr(instructions, "run_under", run)
    other = Contender(
        python=contender.python, artifact=tmp_path / "o", inputs=contender.inputs, threads=1, cpus=(0,)
    )
    assert count_instructions({"net": contender}, {"net": other}) == ({"net": (500.0, 505.0)}, None)


def test_nothing_that_counts_is_told(contender, monkeypatch):
    monkeypatch.setattr(instructions, "perf_counts", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    counts, problem = count_instructions({"net": contender}, {"net": contender})
    assert counts == {}
    assert "valgrind is not installed" in str(problem)


def test_a_process_that_cannot_be_counted_is_told(contender, monkeypatch):
    monkeypatch.setattr(instructions, "perf_counts", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: name)

    def fail(*arguments, **options):
        raise BenchmarkError("It used AVX-512.")

    monkeypatch.setattr(instructions, "run_under", fail)
    counts, problem = count_instructions({"net": contender}, {"net": contender})
    assert counts == {}
    assert "It used AVX-512." in str(problem)
    assert count_instructions({}, {}) == ({}, None)


@pytest.fixture
def fake_runtime(tmp_path, contender) -> Contender:
    """Runs on a package that stands in for Assay's runtime."""
    import numpy as np

    package = tmp_path / "fake" / "assay" / "runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os, pathlib\n"
        "class Model:\n"
        "    def __init__(self, path): self.path = pathlib.Path(path)\n"
        "    def run(self, inputs):\n"
        "        assert inputs['x'].ctypes.data % 64 == 0 and os.environ['TVM_NUM_THREADS'] == '2'\n"
        "        if self.path.name == 'broken': raise ValueError('two\\nlines')\n"
        "        if self.path.name == 'killed': os.kill(os.getpid(), 9)\n"
        "        with self.path.open('a') as stream: stream.write('run ')\n"
        "def load(path, *, threads, verify): return Model(path)\n"
    )
    np.savez(contender.inputs, x=np.arange(5, dtype=np.int16))
    return Contender(
        python=contender.python,
        artifact=contender.artifact,
        inputs=contender.inputs,
        threads=2,
        cpus=contender.cpus[:1],
        environment={"PYTHONPATH": str(tmp_path / "fake")},
    )


def test_models_run_as_often_as_they_are_told(fake_runtime, tmp_path):
    run_under(["env"], [fake_runtime], calls=3, timeout=60)
    assert fake_runtime.artifact.read_text() == "run run run "


@pytest.mark.parametrize(
    ("name", "message"), [("broken", "^ValueError: two lines$"), ("killed", "ended by SIGKILL")]
)
def test_a_process_that_fails_says_why(fake_runtime, tmp_path, name, message):
    from dataclasses import replace

    with pytest.raises(BenchmarkError, match=message):
        run_under([], [replace(fake_runtime, artifact=tmp_path / name)], calls=1, timeout=60)


def test_a_prefix_that_is_not_there_or_hangs(fake_runtime, tmp_path):
    with pytest.raises(BenchmarkError, match="cannot be started"):
        run_under([str(tmp_path / "valgrind")], [fake_runtime], calls=1, timeout=60)
    slow = program(tmp_path, "slow", "exec sleep 10")
    with pytest.raises(BenchmarkError, match=r"within 0\.2 s"):
        run_under([slow], [fake_runtime], calls=1, timeout=0.2)
