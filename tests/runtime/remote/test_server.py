from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.errors import RemoteDeviceError
from assay.runtime.remote.messages import FileInfo, Run, Upload, Working
from assay.runtime.remote.wire import prove_key

KEY = b"k" * 32


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "given.txt").write_text("!")
    return {"in/given.txt": tmp_path / "given.txt"}


def _eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_task_gets_files_and_a_request_and_gives_files(
    make_device: Any, given: dict[str, Path], tmp_path: Path
) -> None:
    with make_device().open(name="bench") as device:
        assert device.welcome.name == "bench"
        done = device.run("upper", b"hello", given, seconds=30)
        assert (done.status, done.expired, set(done.files)) == (0, False, {"out/answer.txt"})
        device.read("out/answer.txt", tmp_path / "answer", 100)
        assert (tmp_path / "answer").read_text() == "HELLO!"


def test_what_is_there_is_not_uploaded_again(make_device: Any, given: dict[str, Path]) -> None:
    served = make_device()
    sent: list[str] = []

    class Steps:
        def step(self, name: str) -> Any:
            sent.append(name)
            import contextlib

            return contextlib.nullcontext()

    for _ in range(2):
        with served.open() as device:
            device.run("upper", b"", given, seconds=30, progress=Steps())
        assert _eventually(lambda: not served.server.busy)
    assert len(sent) == 1


def test_a_task_that_fails_says_why(make_device: Any) -> None:
    with make_device().open() as device:
        done = device.run("fail", b"", {}, seconds=30)
    assert (done.status, done.message) == (1, "for this reason")


def test_a_task_that_hangs_is_ended(make_device: Any, tmp_path: Path) -> None:
    with make_device().open() as device:
        done = device.run("hang", str(tmp_path / "mark").encode(), {}, seconds=1.5)
    assert done.expired
    assert done.status == -9
    assert (tmp_path / "mark").read_text() == "started"


def test_one_at_a_time(make_device: Any) -> None:
    served = make_device()
    with served.open(), pytest.raises(RemoteDeviceError, match=r"is busy: 127\.0\.0\.1:\d+ has had it"):
        served.open()
    assert _eventually(lambda: not served.server.busy)
    served.open().close()


def test_whoever_waits_gets_it_when_it_is_free(make_device: Any) -> None:
    import threading

    served = make_device()
    first = served.open()
    threading.Timer(0.5, first.close).start()
    served.open(wait=20).close()


def test_a_host_that_vanishes_frees_the_device_and_its_task_is_ended(
    make_device: Any, tmp_path: Path
) -> None:
    served = make_device()
    device = served.open()
    request = str(tmp_path / "mark").encode()
    device._connection.send(Run(task="hang", request=request, files={}, seconds=60))
    assert _eventually((tmp_path / "mark").exists)
    device.close()
    assert _eventually(lambda: not served.server.busy)
    assert any("its task was ended" in line for line in served.told)
    assert (tmp_path / "mark").read_text() == "started"
    served.open().close()


def test_a_truncated_upload_frees_the_device_and_leaves_nothing(make_device: Any) -> None:
    served = make_device()
    device = served.open()
    device._connection.send(Upload(content=FileInfo(sha256="0" * 64, bytes=1000)))
    assert device._receive(Working) == Working()
    device._connection._send_frame(b"D", b"half")
    device.close()
    assert _eventually(lambda: not served.server.busy)
    assert list((served.server.folder / "contents").iterdir()) == []


def test_an_upload_that_is_not_what_was_announced_is_not_kept(make_device: Any) -> None:
    served = make_device()
    device = served.open()
    device._connection.send(Upload(content=FileInfo(sha256="0" * 64, bytes=4)))
    device._receive(Working)
    device._connection._send_frame(b"D", b"data")
    with device, pytest.raises(RemoteDeviceError, match="went away"):
        device._receive(Working)
    assert list((served.server.folder / "contents").iterdir()) == []


def test_uploads_that_do_not_fit_are_refused(make_device: Any, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 2000)
    with (
        make_device(most_bytes=1000).open() as device,
        pytest.raises(RemoteDeviceError, match="refuses: A file of 2000 bytes does not fit"),
    ):
        device.run("upper", b"", {"in/given.txt": tmp_path / "large"}, seconds=10)


@pytest.mark.parametrize("name", ["../escape", "/absolute"])
def test_names_outside_of_the_tasks_folder_are_refused(
    make_device: Any, given: dict[str, Path], name: str
) -> None:
    with make_device().open() as device:
        with pytest.raises(RemoteDeviceError, match="not a plain relative path"):
            device.run("upper", b"", {name: next(iter(given.values()))}, seconds=10)
        assert device.run("fail", b"", {}, seconds=30).status == 1  # the session goes on


def test_unknown_tasks_and_files_are_refused(make_device: Any, tmp_path: Path) -> None:
    with make_device().open() as device:
        with pytest.raises(RemoteDeviceError, match="no task 'none'; it has upper, fail, hang"):
            device.run("none", b"", {}, seconds=10)
        with pytest.raises(RemoteDeviceError, match="made no file 'etc/passwd'"):
            device.read("etc/passwd", tmp_path / "x", 10)


def test_whoever_does_not_know_the_key_runs_nothing(make_device: Any) -> None:
    served = make_device()
    for key in (b"", b"z" * 32):
        with pytest.raises(RemoteDeviceError, match=r"needs (a|another) key"):
            served.open(key=key)
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n" + b"x" * 100)
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        sock.recv(100)
    assert _eventually(lambda: len(served.told) >= 4)
    assert not any("session begins" in line for line in served.told)
    served.open().close()


def test_garbage_after_the_greeting_ends_the_session(make_device: Any) -> None:
    served = make_device()
    sock = socket.create_connection(("127.0.0.1", served.port))
    connection = prove_key(sock, KEY, "the device")
    sock.sendall(b"\xff" * 200)
    assert _eventually(lambda: any("bytes that are no frame" in line for line in served.told))
    connection.close()
    assert _eventually(lambda: not served.server.busy)


def test_a_host_that_says_nothing_loses_the_device(make_device: Any) -> None:
    served = make_device(idle_seconds=0.2)
    with served.open():
        assert _eventually(lambda: not served.server.busy)
        served.open().close()
