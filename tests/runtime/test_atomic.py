from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.errors import StorageError
from assay.runtime import atomic
from assay.runtime.atomic import replace_directory, replace_file


def _write(folder: Path, text: str) -> None:
    with replace_directory(folder) as temporary:
        (temporary / "sub").mkdir()
        for name in ("a", "sub/b"):
            (temporary / name).write_text(text)


def _read(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in ("a", "sub/b")}


def _fail_inside_directory(destination: Path, error: BaseException) -> None:
    with replace_directory(destination) as temporary:
        (temporary / "a").write_text("new")
        raise error


def _fail_inside_file(destination: Path, error: BaseException) -> None:
    with replace_file(destination) as temporary:
        temporary.write_text("new")
        raise error


def test_new_directory_and_its_parents(tmp_path):
    _write(tmp_path / "deep" / "x", "new")
    assert _read(tmp_path / "deep" / "x") == {"new"}


def test_replaced_directory_leaves_nothing_beside(tmp_path):
    _write(tmp_path / "x", "old")
    (tmp_path / "x" / "stray").write_text("")
    _write(tmp_path / "x", "new")
    assert _read(tmp_path / "x") == {"new"}
    assert not (tmp_path / "x" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_replaced_without_an_atomic_exchange(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    _write(tmp_path / "x", "old")
    _write(tmp_path / "x", "new")
    assert _read(tmp_path / "x") == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_exchange_swaps_two_directories(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "file").write_text("1")
    assert atomic._exchange(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / "file").read_text() == "1"
    with pytest.raises(OSError, match="No such file"):
        atomic._exchange(tmp_path / "one", tmp_path / "three")


def test_error_inside_keeps_the_old_version(tmp_path):
    _write(tmp_path / "x", "old")
    (tmp_path / "f").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _fail_inside_directory(tmp_path / "x", KeyboardInterrupt())
    with pytest.raises(RuntimeError):
        _fail_inside_file(tmp_path / "f", RuntimeError())
    assert _read(tmp_path / "x") == {"old"}
    assert (tmp_path / "f").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"x", "f"}


def test_replaced_file(tmp_path):
    for text in ("old", "new"):
        with replace_file(tmp_path / "f") as path:
            path.write_text(text)
    assert (tmp_path / "f").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_link_keeps_pointing(tmp_path):
    (tmp_path / "real").mkdir()
    _write(tmp_path / "real" / "x", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "x")
    _write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert _read(tmp_path / "real" / "x") == {"new"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_disk_errors(tmp_path, code):
    for fail in (_fail_inside_directory, _fail_inside_file):
        with pytest.raises(StorageError, match=os.strerror(code)) as caught:
            fail(tmp_path / "x", OSError(code, os.strerror(code)))
        assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_no_room_while_flushing(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        _write(tmp_path / "x", "new")
    assert list(tmp_path.iterdir()) == []


def test_file_where_a_directory_should_go(tmp_path):
    (tmp_path / "x").write_text("precious")
    with pytest.raises(StorageError):
        _write(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        _write(tmp_path / "file" / "x", "new")


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a file system that enforces permissions")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            _write(tmp_path / "x", "new")
    finally:
        tmp_path.chmod(0o700)


_WRITER = """
    import sys
    from pathlib import Path
    from assay.runtime.atomic import replace_directory
    print("ready", flush=True)
    while True:
        with replace_directory(Path(sys.argv[1])) as folder:
            (folder / "sub").mkdir()
            for name in ("a", "sub/b"):
                (folder / name).write_text("x" * 100_000)
"""


@contextlib.contextmanager
def _start(code: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_killed_at_random_moments(tmp_path):
    _write(tmp_path / "x", "old")
    generator = random.Random(0)
    for _ in range(8):
        with _start(_WRITER, tmp_path / "x") as process:
            time.sleep(generator.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
        assert _read(tmp_path / "x") in ({"old"}, {"x" * 100_000})
    _write(tmp_path / "x", "new")
    assert _read(tmp_path / "x") == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_dead_writers_are_swept_and_those_of_live_ones_kept(tmp_path):
    code = """
        import os, sys, time
        from pathlib import Path
        from assay.runtime.atomic import replace_directory, replace_file
        destination = Path(sys.argv[1])
        with replace_directory(destination) as folder, replace_file(destination) as file:
            (folder / "half").write_text("half")
            print("ready", flush=True)
            time.sleep(60)
    """
    with _start(code, tmp_path / "x[1]") as dead:
        dead.kill()
    assert len(list(tmp_path.iterdir())) == 2
    with _start(code, tmp_path / "x[1]") as live:
        leftovers = set(tmp_path.iterdir())
        assert len(leftovers) == 2
        _write(tmp_path / "x[1]", "new")
        assert set(tmp_path.iterdir()) == leftovers | {tmp_path / "x[1]"}
        live.kill()
    _write(tmp_path / "x[1]", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["x[1]"]


def test_writers_at_the_same_time(tmp_path):
    with _start(_WRITER, tmp_path / "x") as first, _start(_WRITER, tmp_path / "x") as second:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            assert first.poll() is None
            assert second.poll() is None
            if (tmp_path / "x").exists():
                assert (tmp_path / "x" / "a").exists()
        first.kill()
        second.kill()
    _write(tmp_path / "x", "new")
    assert _read(tmp_path / "x") == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
