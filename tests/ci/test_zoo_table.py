from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest

from assay.ci import zoo_table
from assay.ci.zoo_cell import Cell, Outcome, make_cell
from assay.ci.zoo_table import markdown, read_cells, run_cell
from assay.errors import RecordError


def _save(path: Path, operator: str, result: onnx.ValueInfoProto) -> Path:
    """A model of one operator over ``x`` [batch, 8], which has a symbolic dimension."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 8])
    node = onnx.helper.make_node(operator, ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [x], [result])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process of a cell runs in the place of a build: source, which the test puts here."""
    source: list[str] = []
    start = subprocess.Popen

    def started(command: list[str], **options: Any) -> subprocess.Popen[str]:
        if command[1:3] != ["-m", "assay.ci.zoo_cell"]:
            return start(command, **options)
        return start([sys.executable, "-c", source[0], *command[3:]], **options)

    monkeypatch.setattr(zoo_table.subprocess, "Popen", started)
    return source


@pytest.mark.slow
def test_a_cell_says_how_far_off_the_outputs_are(tmp_path: Path) -> None:
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 8])
    model = _save(tmp_path / "m.onnx", "Exp", y)
    cell = make_cell(str(model), "wasm32-simd", scheme=None, cache_dtype="float32", cache=tmp_path / "cache")
    assert cell.outcome is Outcome.AGREES
    assert cell.error is not None
    assert 0 <= cell.error < 1e-5
    assert cell.cases == 2
    assert "wasmtime" in (cell.where or "")
    assert cell.seconds["verify"] > 0
    # The artifact is not kept: those of a whole zoo would fill a disk.
    assert not list((tmp_path / "cache" / "artifacts").glob("*/"))


@pytest.mark.slow
def test_what_a_target_lacks_is_refused_by_name(tmp_path: Path) -> None:
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [2, "found"])
    model = _save(tmp_path / "m.onnx", "NonZero", y)
    output = tmp_path / "zoo"
    cell = run_cell(output, str(model), "opencl", limit=300.0)
    assert cell.outcome is Outcome.REFUSED
    assert (output / "opencl" / "m.json").is_file()


def test_a_crash_a_failure_and_a_late_end_are_cells(tmp_path: Path, programs: list[str]) -> None:
    programs.append("import os, sys; print('step: verify', file=sys.stderr, flush=True); os.abort()")
    crashed = run_cell(tmp_path, "m", "opencl", limit=60.0)
    assert crashed.outcome is Outcome.CRASHED
    assert crashed.reason == "The process ended by SIGABRT in the step 'verify'."
    programs[0] = "import sys; print('error: The linker failed', file=sys.stderr); sys.exit(1)"
    failed = run_cell(tmp_path, "m", "vulkan", limit=60.0)
    assert failed.outcome is Outcome.FAILED
    assert failed.reason == "The process ended with status 1. The linker failed"
    programs[0] = "import time; time.sleep(60)"
    late = run_cell(tmp_path, "m", "webgpu", limit=0.5)
    assert late.outcome is Outcome.LATE
    assert late.total < 30
    assert read_cells(tmp_path) == [crashed, failed, late]


def test_a_late_process_takes_its_own_along(tmp_path: Path, programs: list[str]) -> None:
    child = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); open(sys.argv[3] + '.pid', 'w')"
    programs.append(child + ".write(str(p.pid)); p.wait()")
    run_cell(tmp_path, "m", "opencl", limit=3.0)
    pid = int((tmp_path / "opencl" / "m.json.pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_cells_that_are_there_are_not_made_again(
    tmp_path: Path, programs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    programs.append("raise SystemExit(1)")
    arguments = ["first", "second", "--target", "opencl", "-o", str(tmp_path)]
    assert zoo_table.main(arguments) == 1
    assert "| `second` | failed (1) |" in capsys.readouterr().out
    agrees = Cell(model="first", target="opencl", outcome=Outcome.AGREES, error=1e-6, seconds={"verify": 2.0})
    (tmp_path / "opencl" / "first.json").write_bytes(msgspec.json.encode(agrees))
    refusal = Cell(model="second", target="opencl", outcome=Outcome.REFUSED, reason="no kernel for Sort")
    programs[0] = f"import sys; open(sys.argv[3], 'wb').write({msgspec.json.encode(refusal)!r})"
    assert zoo_table.main([*arguments, "--again", "failed"]) == 0
    shown = capsys.readouterr().out
    assert "| `first` | 1.0e-06, 2 s |" in shown
    assert "| `second` | refused (1) |" in shown
    assert "1. no kernel for Sort" in shown
    assert zoo_table.main([*arguments, "--show"]) == 0


def test_a_file_that_is_no_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / "opencl").mkdir()
    (tmp_path / "opencl" / "m.json").write_text("{}")
    with pytest.raises(RecordError, match=r"m\.json is no cell"):
        read_cells(tmp_path)


def test_the_error_of_logits_is_that_of_their_rows() -> None:
    cell = Cell(
        model="m", target="t", outcome=Outcome.AGREES, error=0.1, row_error=2e-5, seconds={"verify": 12.3}
    )
    assert "| `m` | 2.0e-05 of the deviation, 12 s | not run |" in markdown([cell], ["m"], ["t", "u"])
