"""Tuning a model for real, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.records import read_records, record_path
from assay.compile.targets import find_target
from assay.compile.targets.microarchitecture import microarchitecture
from assay.compile.tune.session import tune_model
from assay.models.registry import find_model


def journal_lines(cache: Path) -> list[bytes]:
    path = cache / "tuning" / "x86-64-v3.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


@pytest.mark.slow
@pytest.mark.usefixtures("needs_named_cpu")
def test_a_search_that_is_killed_goes_on_where_it_was(
    needs_avx2: None, perceptron_file: Path, tmp_path: Path
) -> None:
    cache, records = tmp_path / "cache", tmp_path / "records"
    command = [sys.executable, "-m", "assay.cli.main", "tune", str(perceptron_file), "--target", "x86-64-v3"]
    command += ["--budget", "600", "--cache", str(cache), "-o", str(records), "--strategy", "grid"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(journal_lines(cache)) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = journal_lines(cache)
    assert len(before) >= 3
    tuned = tune_model(find_model(str(perceptron_file)), records, target="x86-64-v3", budget=20, cache=cache)
    after = journal_lines(cache)
    # A torn last line is gone; everything else stays.
    assert after[: len(before) - 1] == before[:-1]
    assert len(after) > len(before)
    unconfirmed = [line for line in after if b'"confirmed":true' not in line]
    assert tuned.workloads == 2
    assert tuned.result.tried >= len(before) - 1
    assert unconfirmed


@pytest.mark.slow
@pytest.mark.usefixtures("needs_named_cpu")
def test_records_change_the_key_of_a_build_that_takes_them(
    needs_avx2: None, perceptron: onnx.ModelProto, perceptron_file: Path, tmp_path: Path, cache: Path
) -> None:
    from assay.compile.records import Origin, Record, RecordFile, write_records

    name = microarchitecture()
    assert name is not None
    path = record_path(tmp_path, "x86-64-v3", name)
    path.parent.mkdir(parents=True)
    origin = Origin(cpu="cpu", time="2026-01-01T00:00:00Z", versions={})
    record = Record(
        workload="packed_matmul float32 rows=1 cols=24 depth=20", choice={"rows": 1, "panel_width": 8},
        threads=1, seconds=1.0, baseline_seconds=1.1, ratio=1.1, measured=origin,
    )  # fmt: skip
    write_records(path, RecordFile(target="x86-64-v3", microarchitecture=name, records=(record,)))
    assert read_records(path).records == (record,)
    spec = find_model(str(perceptron_file))
    if find_target(name).name != "x86-64-v3":
        pytest.skip("this machine's micro-architecture is no alias of x86-64-v3")
    plain = build_artifact(spec, target=name, records=[], cache=cache)
    tuned = build_artifact(spec, target=name, records=[tmp_path], cache=cache)
    assert plain.path != tuned.path
    assert (plain.path / "lib/model.so").read_bytes() != (tuned.path / "lib/model.so").read_bytes()
    again = build_artifact(spec, target=name, records=[tmp_path], cache=cache)
    assert again.cached
    level = build_artifact(spec, target="x86-64-v3", records=[tmp_path], cache=cache)
    assert level.path == plain.path
