from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.ci import target_table
from assay.ci.target_table import TargetRow, build_row, markdown


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = x @ w + b, with one symbolic dimension."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype("float32"), name)
        for name, shape in (("w", (8, 4)), ("b", (4,)))
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["batch", 8]), ("y", ["batch", 4]))
    ]
    node = onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], weights)
    path = tmp_path / "model.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


@pytest.mark.slow
def test_what_came_of_each_target(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASSAY_CACHE_DIR", str(tmp_path / "cache"))
    output = tmp_path / "rows.json"
    arguments = [str(model), "--target", "x86-64-v2,wasm32-simd,rocm-gfx942", "-o", str(output)]
    assert target_table.main(arguments) == 0
    wasm, native, rocm = json.loads(output.read_text())
    assert native["executed"] == "this CPU"
    assert native["linked"] == "shared library"
    assert native["seconds"] > 0
    assert "wasmtime" in wasm["executed"]
    assert wasm["linked"] == "WebAssembly module"
    assert rocm["executed"].startswith("never. ")
    assert rocm["linked"] == "code object"
    assert rocm["seconds"] is None
    assert rocm["untimed"]
    assert all(row["error"] < 1e-4 and row["bytes"] > 0 for row in (wasm, native, rocm))
    assert capsys.readouterr().out.count("| yes |") == 3


def test_a_build_that_fails_is_a_row(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.write_bytes(b"not a model")
    row = build_row(str(model), "x86-64-v3", tmp_path)
    assert row.problem is not None
    assert "model.onnx" in row.problem
    assert "Traceback" not in row.problem
    assert markdown("m", [row]).splitlines()[-1].startswith("| x86-64-v3 | no: ")


def test_a_build_that_hangs_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "took longer" in (build_row("m", "opencl", tmp_path).problem or "")


def test_an_unknown_target_is_told_before_anything_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert target_table.main(["m", "--target", "x86-64-v3,opencll"]) != 0
    assert "Did you mean opencl" in capsys.readouterr().err


def test_the_table_says_why_a_cell_is_no_figure() -> None:
    row = TargetRow(target="t", linked="PTX", executed="never", error=1e-6, untimed="no | device", bytes=10)
    assert markdown("m", [row]).splitlines()[-1] == (
        "| t | yes | PTX | never | 1.0e-06 | not timed: no \\| device | 0.00 MB |"
    )
