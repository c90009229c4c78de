from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from assay.compile.stamps import keep_stamps, stamps_of, unchanged_note


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "first").write_bytes(b"first")
    (folder / "inner" / "second").write_bytes(b"second")
    return folder


def test_what_is_unchanged_has_its_note(folder: Path, tmp_path: Path) -> None:
    record = tmp_path / "records" / "one.stamps"
    assert unchanged_note(record, folder) is None
    keep_stamps(record, folder, "whole")
    assert unchanged_note(record, folder) == "whole"
    keep_stamps(record, folder / "first")
    assert unchanged_note(record, folder / "first") == ""
    assert unchanged_note(record, folder / "inner" / "second") is None


def test_files_beside_a_file_belong_to_it(folder: Path, tmp_path: Path) -> None:
    record, file = tmp_path / "one.stamps", folder / "first"
    before = stamps_of(file, ["inner/second"])
    keep_stamps(record, file, "whole", files=before)
    (folder / "third").write_bytes(b"of no concern")
    assert unchanged_note(record, file) == "whole"
    (folder / "inner" / "second").write_bytes(b"other")
    assert unchanged_note(record, file) is None
    keep_stamps(record, file, "whole", files=before)
    assert not record.exists(), "what changed after its stamps were taken is not what was checked"


def test_every_change_is_noticed(folder: Path, tmp_path: Path) -> None:
    record, file = tmp_path / "one.stamps", folder / "inner" / "second"

    def same_size_and_times() -> None:
        times = file.stat()
        file.write_bytes(b"SECOND")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    def another_in_its_place() -> None:
        shutil.copy2(file, file.with_name("copy"))
        file.with_name("copy").replace(file)

    for change in (
        same_size_and_times,
        another_in_its_place,
        lambda: (folder / "third").write_bytes(b""),
        lambda: (folder / "third").unlink(),
        lambda: file.rename(folder / "second"),
        lambda: shutil.rmtree(folder),
    ):
        keep_stamps(record, folder)
        before = unchanged_note(record, folder)
        change()
        assert (before, unchanged_note(record, folder)) == ("", None)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"files": {}}'])
def test_damaged_record_counts_as_none(folder: Path, tmp_path: Path, content: bytes) -> None:
    record = tmp_path / "one.stamps"
    record.write_bytes(content)
    assert unchanged_note(record, folder) is None


def test_nothing_is_kept_of_a_file_of_the_future(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "one.stamps"
    keep_stamps(record, folder)
    monkeypatch.setattr(time, "time_ns", lambda: (folder / "first").stat().st_ctime_ns - 1_000_000_000)
    keep_stamps(record, folder)
    assert unchanged_note(record, folder) is None


def test_nothing_is_kept_where_times_are_whole_seconds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, real = tmp_path / "one.stamps", Path.lstat

    def lstat(path: Path) -> os.stat_result:
        status = real(path)
        names = ("st_atime", "st_mtime", "st_ctime")
        return os.stat_result([*status], {f"{name}_ns": int(getattr(status, name)) * 10**9 for name in names})

    monkeypatch.setattr(Path, "lstat", lstat)
    keep_stamps(record, folder)
    assert not record.exists()
