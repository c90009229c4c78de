from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import get_args

import pytest

from assay.errors import RecordError, StorageError
from assay.results.record import (
    SCHEMA_VERSION,
    UNITS,
    Metric,
    encode_records,
    new_run_id,
    read_records,
    write_records,
)


def test_what_is_written_is_read(tmp_path, make_record):
    records = [make_record(), make_record(engine="onnxruntime", threads=2, interval=(0.01, 0.02))]
    path = write_records(tmp_path / "runs", records)
    assert path == tmp_path / "runs" / "run-1.json"
    assert read_records(path) == records
    assert [entry.name for entry in path.parent.iterdir()] == ["run-1.json"]


def test_the_json_has_what_scripts_rely_on(make_record):
    (found,) = json.loads(encode_records([make_record()]))
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
    assert names <= found.keys()
    assert found["unit"] == "s"
    assert found["machine"]["memory_bytes"] == 8 << 30


def test_rounds_split_the_samples(make_record):
    record = make_record([[1.0], [2.0, 3.0], [4.0, 5.0, 6.0]])
    assert record.rounds() == [(1.0,), (2.0, 3.0), (4.0, 5.0, 6.0)]


def test_records_of_two_runs_do_not_share_a_file(tmp_path, make_record):
    with pytest.raises(ValueError, match="one run"):
        write_records(tmp_path, [make_record(), make_record(run_id="run-2")])
    with pytest.raises(ValueError, match="one run"):
        write_records(tmp_path, [])


def test_a_newer_schema_is_refused(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "rows": []}))
    with pytest.raises(RecordError, match=f"schema {SCHEMA_VERSION + 1}") as caught:
        read_records(path)
    assert caught.value.hint == "Upgrade Assay."


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{}", b'{"schema_version": 1}'])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"run\.json is damaged"):
        read_records(path)


def test_a_truncated_file_is_refused(tmp_path, make_record):
    path = write_records(tmp_path, [make_record()])
    content = path.read_bytes()
    for length in range(0, len(content) - 2, 97):
        path.write_bytes(content[:length])
        with pytest.raises(RecordError):
            read_records(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "bytes"}, "gives latency in bytes, not in s"),
        ({"samples_per_round": [1]}, "has 5 samples, but rounds of 1"),
        ({"value": "fast"}, "value"),
        ({"colour": "red"}, "colour"),
        ({"threads": 0}, "threads"),
    ],
)
def test_fields_that_do_not_fit_are_refused(tmp_path, make_record, change, message):
    path = write_records(tmp_path, [make_record()])
    content = json.loads(path.read_text())
    content["records"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=message):
        read_records(path)


def test_a_missing_file_is_a_record_error(tmp_path: Path):
    with pytest.raises(RecordError, match="No such file"):
        read_records(tmp_path / "none.json")


def test_a_full_disk_leaves_nothing_behind(tmp_path, make_record, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_records(tmp_path, [make_record()])
    assert list(tmp_path.iterdir()) == []


def test_every_metric_has_a_base_unit():
    assert set(UNITS) == set(get_args(Metric))
    assert set(UNITS.values()) == {"s", "bytes", "tokens/s", "instructions", "kernels", "1"}


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_older_schemas_are_read(tmp_path, make_record, version):
    record = make_record()
    path = write_records(tmp_path, [record])
    content = json.loads(path.read_text())
    content["schema_version"] = content["records"][0]["schema_version"] = version
    for name in ("method", *(("commit_time", "branch") if version == 1 else ())):
        del content["records"][0][name]
    path.write_text(json.dumps(content))
    assert read_records(path) == [record]


def test_run_ids_differ_and_name_files():
    first, second = new_run_id(), new_run_id()
    assert first != second
    assert first.replace("-", "").isalnum()
