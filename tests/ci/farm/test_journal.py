from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from assay.ci.farm.jobs import Job
from assay.ci.farm.journal import opened_journal
from assay.errors import UsageError


def test_what_was_kept_is_found_by_another_run(tmp_path: Path, job: Job) -> None:
    with opened_journal(tmp_path) as journal:
        assert journal.find(job) is None
        journal.add(job, {"a": b"1", "b": b""}, host="vm", seconds=2.5)
    with opened_journal(tmp_path) as journal:
        found = journal.find(job)
        assert found is not None
        entry, result = found
        assert (entry.host, entry.seconds, result) == ("vm", 2.5, {"a": b"1", "b": b""})
        assert journal.find(msgspec.structs.replace(job, model="other")) is None


def test_keeping_twice_is_keeping_once(tmp_path: Path, job: Job) -> None:
    with opened_journal(tmp_path) as journal:
        journal.add(job, {"a": b"1", "old": b""}, host="vm", seconds=1)
        journal.add(job, {"a": b"2"}, host="vm", seconds=1)
        found = journal.find(job)
        assert found is not None
        assert found[1] == {"a": b"2"}
    assert len(list((tmp_path / "jobs").iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"changed", None])
def test_what_was_damaged_counts_as_not_done(tmp_path: Path, job: Job, damage: bytes | None) -> None:
    with opened_journal(tmp_path) as journal:
        journal.add(job, {"a": b"1"}, host="vm", seconds=1)
        path = tmp_path / "jobs" / job.key / "a"
        path.unlink() if damage is None else path.write_bytes(damage)
        assert journal.find(job) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"job": 1}', b"\xff"])
def test_an_entry_that_is_none(tmp_path: Path, job: Job, content: bytes) -> None:
    with opened_journal(tmp_path) as journal:
        journal.add(job, {"a": b"1"}, host="vm", seconds=1)
        (tmp_path / "jobs" / job.key / "entry.json").write_bytes(content)
        assert journal.find(job) is None


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        opened_journal(tmp_path),
        pytest.raises(UsageError, match="Another farm runs in the folder"),
        opened_journal(tmp_path),
    ):
        pass
    with opened_journal(tmp_path):
        pass
