from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

import pytest

from assay.benchmarks import footprint
from assay.benchmarks.footprint import Footprint, installed_size
from assay.benchmarks.peers import ModelFiles
from assay.errors import BenchmarkError


def test_installed_size_counts_what_is_required_and_no_extras():
    sizes = installed_size("assay")
    assert {"assay", "numpy", "apache-tvm-ffi", "msgspec"} <= sizes.keys()
    assert not {"torch", "onnx", "onnxruntime", "apache-tvm"} & sizes.keys()
    assert all(size > 0 for size in sizes.values())
    files = importlib.metadata.files("msgspec") or []
    paths = [Path(str(file.locate())) for file in files if "__pycache__" not in str(file)]
    assert sizes["msgspec"] == sum(path.stat().st_size for path in paths)


def test_unknown_distribution_has_no_size():
    assert installed_size("no-such-distribution") == {}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_peak_memory_grows_with_what_is_used():
    before = footprint._peak_bytes()
    used = bytearray(os.urandom(1) * (200 << 20))
    assert footprint._peak_bytes() >= before
    assert footprint._peak_bytes() >= len(used)


def test_failure_of_an_engine_is_told(tmp_path):
    files = ModelFiles(name="x", artifact=tmp_path / "absent", canonical=None)
    with pytest.raises(BenchmarkError, match=r"assay failed: .*no artifact at"):
        footprint.measure(files, names=["assay"], threads=1, rounds=1)


def test_rounds_and_output(monkeypatch, capsys, tmp_path):
    taken = []

    def sample(name, files, threads):
        taken.append(name)
        number = len(taken)
        return {
            "load_seconds": number / 10,
            "first_run_seconds": 0.5,
            "loaded_peak_bytes": number * 10_000_000,
            "peak_bytes": number * 20_000_000,
        }

    monkeypatch.setattr(footprint, "_sample", sample)
    arguments = [str(tmp_path), "--onnx", str(tmp_path), "--rounds", "2"]
    assert footprint.main([*arguments, "--json"]) == 0
    assert taken == ["assay", "onnxruntime", "onnxruntime", "assay"]
    first, second = (Footprint(**each) for each in json.loads(capsys.readouterr().out))
    assert (first.engine, second.engine) == ("assay", "onnxruntime")
    assert list(first.load_seconds) == [0.1, 0.4]
    taken.clear()
    assert footprint.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[0] == "assay"
    assert lines[1].split()[2:] == ["0.250", "0.500", "25.0", "50.0"]
