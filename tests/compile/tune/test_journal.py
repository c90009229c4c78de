from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.compile.schedules.choices import SCHEDULE_VERSION, Choice, packed_matmul_workload
from assay.compile.tune.journal import Journal, Trial, opened_journal
from assay.errors import TuningRecordError

WORKLOAD = packed_matmul_workload(8, 16, 32)


def trial(rows: int, **changes: Any) -> Trial:
    fields: dict[str, Any] = {
        "workload": WORKLOAD.key,
        "threads": 1,
        "width": None,
        "choice": {"rows": rows},
        "status": "ok",
        "ratio": 1.5,
        "cpu": "cpu",
        "time": "2026-01-01T00:00:00Z",
        "versions": {"apache-tvm": "1"},
    }
    return Trial(**{**fields, **changes})


def opened(path: Path) -> Any:
    return opened_journal(path, cpu="cpu", versions={"apache-tvm": "1"})


def written(path: Path, *trials: Trial) -> bytes:
    with opened(path) as journal:
        for each in trials:
            journal.add(each)
    return path.read_bytes()


def read(path: Path) -> list[Trial]:
    with opened(path) as journal:
        assert isinstance(journal, Journal)
        return list(journal.trials)


def test_trials_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "tuning" / "t.jsonl"
    written(path, trial(1), trial(2))
    written(path, trial(3))
    assert [each.decided for each in read(path)] == [Choice(rows=1), Choice(rows=2), Choice(rows=3)]


def test_a_kill_anywhere_loses_at_most_the_last_trial(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    whole = written(path, trial(1), trial(2), trial(3))
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    near_ends = {end + step for end in (0, *ends) for step in (-1, 0, 1)}
    for length in sorted({*range(0, len(whole), 41), *near_ends} & set(range(len(whole) + 1))):
        path.write_bytes(whole[:length])
        complete = sum(end <= length for end in ends)
        assert len(read(path)) == complete
        # What comes next starts on a line of its own.
        written(path, trial(9))
        assert [each.choice["rows"] for each in read(path)] == [*range(1, complete + 1), 9]


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"{}",
        msgspec.json.encode(trial(1, workload="nothing")),
        msgspec.json.encode(trial(1, choice={"rows": -1})),
    ],
)
def test_damage_before_the_end_is_told(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(line + b"\n" + msgspec.json.encode(trial(1)) + b"\n")
    with pytest.raises(TuningRecordError, match=r"Line 1 of the tuning journal"), opened(path):
        pass


@pytest.mark.parametrize(
    "foreign",
    [
        trial(1, cpu="another"),
        trial(1, versions={"apache-tvm": "2"}),
        trial(1, schedule_version=SCHEDULE_VERSION + 1),
    ],
)
def test_trials_of_other_machines_versions_and_schedules_do_not_count(tmp_path: Path, foreign: Trial) -> None:
    path = tmp_path / "t.jsonl"
    before = written(path, foreign)
    assert read(path) == []
    assert path.read_bytes() == before
