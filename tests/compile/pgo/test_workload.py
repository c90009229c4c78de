from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.compile.describe import interface_of
from assay.compile.pgo.workload import read_workload, representative_workload, sizes_of
from assay.errors import WorkloadError
from assay.models.registry import find_model
from assay.runtime.manifest import Input, SymbolicSize
from assay.runtime.recording import record_inputs

BATCH = SymbolicSize(name="batch", default=1, minimum=1, maximum=8)
INTERFACE = (
    Input(name="x", dtype="float32", shape=(BATCH, 2)),
    Input(name="n/ids", dtype="int64", shape=(BATCH,)),
)


def arrays(batch: int) -> dict[str, Any]:
    return {"x": np.ones((batch, 2), np.float32), "n/ids": np.arange(batch)}


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    for batch in (3, 1, 3):
        record_inputs(tmp_path / "w", arrays(batch))
    cases = read_workload(tmp_path / "w", INTERFACE)
    assert [(dict(case.sizes), case.count) for case in cases] == [({"batch": 3}, 2), ({"batch": 1}, 1)]
    for name, expected in arrays(3).items():
        np.testing.assert_array_equal(cases[0].inputs[name], expected)
    assert sizes_of(cases[0].inputs, INTERFACE) == {"batch": 3}


def test_json_and_folders_of_arrays_are_cases_too(tmp_path: Path) -> None:
    interface = (Input(name="x", dtype="float32", shape=(BATCH, 2)),)
    (tmp_path / "a.json").write_text(json.dumps({"x": [[1, 2]]}))
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "x.npy", np.zeros((2, 2), np.float32))
    (tmp_path / "notes.txt").write_text("not a case")
    assert [case.sizes["batch"] for case in read_workload(tmp_path, interface)] == [1, 2]


def write(folder: Path, name: str, content: bytes | dict[str, Any]) -> None:
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        np.savez(folder / name, **content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", {"x": np.ones((1, 2), np.float32)}, r"'n/ids' is missing"),
        ("a.npz", {**arrays(1), "y": np.ones(1)}, r"has no input 'y'"),
        ("a.npz", {**arrays(1), "x": np.ones((1, 2))}, r"dtype float64"),
        ("a.npz", {**arrays(1), "x": np.ones((1, 3), np.float32)}, r"size 3, expected 2"),
        ("a.npz", arrays(9), r"batch is 9, expected 1 to 8"),
        ("a.npz", {**arrays(2), "n/ids": np.arange(3)}, r"batch is 3, but 2"),
        ("a.npz", b"PK\x03\x04 truncated", r"cannot be read"),
        ("a.npz", b"", r"cannot be read"),
        ("a.json", b"{", r"cannot be read"),
        ("a.json", b"[1, 2]", r"no object"),
        ("a.json", b'{"x": [["a", "b"]], "n/ids": [0]}', r"other than numbers"),
        ("a.json", b'{"x": [[1, 2]], "n/ids": [0.5]}', r"no int64"),
        ("a.json", b'{"x": [[1, 2], [3]], "n/ids": [0]}', r"cannot be read"),
        ("a.txt", b"text", r"has no cases"),
    ],
)
def test_folders_that_do_not_fit(
    tmp_path: Path, name: str, content: bytes | dict[str, Any], message: str
) -> None:
    write(tmp_path, name, content)
    with pytest.raises(WorkloadError, match=message):
        read_workload(tmp_path, INTERFACE)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="no workload folder"):
        read_workload(tmp_path / "none", INTERFACE)


def test_a_registered_model_is_run_at_several_sizes() -> None:
    spec = find_model("minilm")
    cases = representative_workload(spec)
    assert [case.sizes["sequence"] for case in cases] == [32, 64, 128, 256]
    assert all(case.inputs["input_ids"].shape == (1, case.sizes["sequence"]) for case in cases)
    assert interface_of(spec)[0].name == "input_ids"


def test_a_file_says_nothing_of_how_it_is_used(perceptron_file: Path) -> None:
    assert representative_workload(find_model(str(perceptron_file))) == []
