from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from assay.errors import StorageError
from assay.runtime.remote.messages import FileInfo
from assay.runtime.remote.store import ContentStore, UnsafeNameError
from assay.runtime.remote.wire import digest_of


def _add(store: ContentStore, tmp_path: Path, content: bytes) -> FileInfo:
    (tmp_path / "scratch").write_bytes(content)
    info = digest_of(tmp_path / "scratch")

    def write(stream: BinaryIO) -> None:
        stream.write(content)

    store.add(info, write, ready=lambda: None)
    return info


def test_what_was_added_is_laid_out_under_its_names(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store", 1000)
    info = _add(store, tmp_path, b"content")
    assert store.has(info)
    store.lay_out({"a/b": info, "c": info}, tmp_path / "out")
    assert (tmp_path / "out/a/b").read_bytes() == (tmp_path / "out/c").read_bytes() == b"content"


def test_what_a_task_does_to_its_files_changes_nothing(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store", 1000)
    info = _add(store, tmp_path, b"content")
    store.lay_out({"a": info}, tmp_path / "out")
    (tmp_path / "out/a").write_bytes(b"changed")
    store.lay_out({"a": info}, tmp_path / "again")
    assert (tmp_path / "again/a").read_bytes() == b"content"


def test_a_content_that_was_damaged_is_not_used(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store", 1000)
    info = _add(store, tmp_path, b"content")
    kept = tmp_path / "store" / info.sha256
    kept.chmod(0o600)
    kept.write_bytes(b"CONTENT")
    with pytest.raises(StorageError, match="not here any more"):
        store.lay_out({"a": info}, tmp_path / "out")
    assert not store.has(info)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a//b", "a/../../b", "a\0b", "..", "a\\b", ""])
def test_names_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    store = ContentStore(tmp_path / "store", 1000)
    info = _add(store, tmp_path, b"content")
    with pytest.raises(UnsafeNameError, match="plain relative path"):
        store.lay_out({name: info}, tmp_path / "out")


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store", 30)
    infos = [_add(store, tmp_path, bytes([letter]) * 10) for letter in b"abc"]
    for age, info in enumerate(infos):
        os.utime(tmp_path / "store" / info.sha256, (1000 - age, 1000 - age))
    store.lay_out({"c": infos[2]}, tmp_path / "out")  # used: the oldest is the newest now
    _add(store, tmp_path, b"d" * 10)
    assert [store.has(info) for info in infos] == [True, False, True]


def test_what_does_not_fit_is_refused_before_it_comes(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store", 5)
    with pytest.raises(StorageError, match="does not fit"):
        _add(store, tmp_path, b"content")


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store", 1000)

    def broken(stream: object) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(StorageError):
        store.add(FileInfo(sha256="0" * 64, bytes=3), broken, ready=lambda: None)
    assert list((tmp_path / "store").iterdir()) == []
