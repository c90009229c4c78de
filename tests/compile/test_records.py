from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.compile.records import (
    Origin,
    Record,
    RecordFile,
    find_records,
    package_folder,
    read_records,
    record_path,
    write_records,
)
from assay.compile.schedules.choices import SCHEDULE_VERSION, Choice, packed_matmul_workload
from assay.compile.targets import targets
from assay.compile.targets.microarchitecture import cpu_model, microarchitecture, named_microarchitectures
from assay.errors import TuningRecordError

WORKLOAD = packed_matmul_workload(8, 16, 32)


def record(rows: int = 5, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "workload": WORKLOAD.key,
        "choice": {"rows": rows},
        "threads": 1,
        "seconds": 1e-5,
        "baseline_seconds": 1.2e-5,
        "ratio": 1.2,
        "measured": Origin(cpu="cpu", time="2026-01-01T00:00:00Z", versions={}),
    }
    return Record(**{**fields, **changes})


def write(folder: Path, *records: Record, name: str = "znver3", **changes: Any) -> Path:
    path = record_path(folder, "x86-64-v3", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"target": "x86-64-v3", "microarchitecture": name, "records": records, **changes}
    write_records(path, RecordFile(**fields))
    return path


def test_records_of_the_micro_architecture_are_taken(tmp_path: Path) -> None:
    write(tmp_path, record())
    found = find_records("x86-64-v3", "znver3", [tmp_path])
    assert found.tuning is not None
    assert found.tuning.choice(WORKLOAD) == Choice(rows=5)
    assert found.notes == ()


def test_a_build_for_a_plain_level_takes_none(tmp_path: Path) -> None:
    write(tmp_path, record())
    assert find_records("x86-64-v3", None, [tmp_path]).tuning is None


def test_later_folders_win(tmp_path: Path) -> None:
    for number, rows in ((1, 3), (2, 4)):
        write(tmp_path / str(number), record(rows))
    found = find_records("x86-64-v3", "znver3", [tmp_path / "1", tmp_path / "2"])
    assert found.tuning is not None
    assert found.tuning.choice(WORKLOAD).rows == 4


def test_a_stale_record_is_ignored_with_a_word(tmp_path: Path) -> None:
    write(tmp_path, record(schedule_version=SCHEDULE_VERSION - 1))
    found = find_records("x86-64-v3", "znver3", [tmp_path])
    assert found.tuning is None
    [note] = found.notes
    assert "of other schedules" in note
    assert "ignored" in note


def test_records_of_another_cpu_are_ignored_with_a_word(tmp_path: Path) -> None:
    write(tmp_path, record(), name="znver4")
    found = find_records("x86-64-v3", "znver3", [tmp_path])
    assert found.tuning is None
    [note] = found.notes
    assert "znver4" in note
    assert "ignored" in note


def test_a_file_under_another_name_is_ignored_with_a_word(tmp_path: Path) -> None:
    write(tmp_path, record(), microarchitecture="znver4")
    found = find_records("x86-64-v3", "znver3", [tmp_path])
    assert found.tuning is None
    assert "znver4" in found.notes[0]


def test_truncated_records_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, record())
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(TuningRecordError, match="damaged or truncated"):
            find_records("x86-64-v3", "znver3", [tmp_path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "have schema 99"),
        ({"surprise": 1}, "damaged"),
        ({"records": [{}]}, "damaged"),
    ],
)
def test_damaged_records_are_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path, record())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(TuningRecordError, match=message):
        read_records(path)


@pytest.mark.parametrize("change", [{"workload": "nothing"}, {"choice": {"rows": 0}}, {"choice": {"x": 1}}])
def test_records_that_make_no_sense_are_told(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path, msgspec.structs.replace(record(), **change))
    with pytest.raises(TuningRecordError, match="damaged"):
        read_records(path)


def test_what_comes_with_assay_is_whole_and_lies_in_its_place() -> None:
    for path in package_folder().glob("*/*.json"):
        file = read_records(path)
        assert (file.target, file.microarchitecture) == (path.parent.name, path.stem)
        assert file.target in targets()
        assert all(each.ratio > 1 for each in file.records)
        keys = [(each.workload, each.threads) for each in file.records]
        assert keys == sorted(set(keys))


CPUINFO = "vendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nstepping\t: {}\n\nvendor_id : other\n"


@pytest.mark.parametrize(
    ("vendor", "family", "model", "stepping", "name"),
    [
        ("AuthenticAMD", 23, 0x31, 0, "znver2"),
        ("AuthenticAMD", 25, 1, 1, "znver3"),
        ("AuthenticAMD", 25, 0x11, 1, "znver4"),
        ("AuthenticAMD", 26, 2, 1, "znver5"),
        ("GenuineIntel", 6, 0x3C, 3, "haswell"),
        ("GenuineIntel", 6, 0x55, 4, "skylake-avx512"),
        ("GenuineIntel", 6, 0x55, 7, "cascadelake"),
        ("GenuineIntel", 6, 0x6A, 6, "icelake-server"),
        ("GenuineIntel", 6, 0xFFFF, 6, None),
        ("Another", 6, 1, 1, None),
    ],
)
def test_micro_architectures_by_family_and_model(
    tmp_path: Path, vendor: str, family: int, model: int, stepping: int, name: str | None
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO.format(vendor, family, model, stepping))
    assert microarchitecture(path) == name
    assert cpu_model(path) == f"{vendor} family {family} model {model} stepping {stepping}"


def test_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    assert microarchitecture(tmp_path / "none") is None
    assert cpu_model(tmp_path / "none") == "unknown"


def test_only_a_name_of_a_micro_architecture_asks_for_its_records() -> None:
    assert named_microarchitectures("x86-64-v3") == {}
    assert named_microarchitectures(["znver3", "x86-64-v4"]) == {"x86-64-v3": "znver3"}
    assert named_microarchitectures("x86-64-v3,haswell") == {"x86-64-v3": "haswell"}
