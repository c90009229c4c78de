"""Code of a level on an emulated CPU that has that level and no more: one instruction too many ends it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assay.compile.build import build_artifact
from assay.compile.verify import Case, read_outputs, save_inputs
from assay.models.inputs import make_inputs
from assay.models.registry import find_model
from assay.runtime import load


@pytest.mark.slow
def test_x86_64_v2_runs_on_a_nehalem_and_x86_64_v3_does_not(
    perceptron_file: Path, needs_avx2: None, cache: Path, tmp_path: Path
) -> None:
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs the emulated machine that ci/emulator.sh installs")
    spec = find_model(str(perceptron_file))
    path = build_artifact(spec, target="x86-64-v2,x86-64-v3", cache=cache).path
    inputs = dict(make_inputs(spec, {"batch": 7}, seed=0))
    expected = load(path, level="x86-64-v2", threads=1).run(inputs)
    case = Case(sizes={"batch": 7}, inputs=inputs, expected=expected)
    save_inputs(tmp_path, [case])

    def run(level: str) -> int:
        worker = [sys.executable, "-m", "assay.compile.verify_worker", str(path), level, str(tmp_path), "1"]
        return subprocess.run(
            [emulator, "-cpu", "Nehalem", *worker], capture_output=True, timeout=500, check=False
        ).returncode

    assert run("x86-64-v2") == 0
    (actual,) = read_outputs(tmp_path, [case])
    for name, array in expected.items():
        assert (actual[name] == array).all()
    assert run("x86-64-v3") == -signal.SIGILL
