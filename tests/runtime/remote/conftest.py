from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.errors import RemoteDeviceError
from assay.runtime.remote.client import RemoteDevice, connect
from assay.runtime.remote.server import DeviceServer, describe_this_machine

KEY = b"k" * 32

# What the tasks of the test's device do; -P keeps the current folder off the path, and PYTHONPATH does not.
TASK = """
import pathlib, sys, time
what, request = sys.argv[1], sys.stdin.read()
if what == "upper":
    pathlib.Path("out").mkdir()
    pathlib.Path("out/answer.txt").write_text(request.upper() + pathlib.Path("in/given.txt").read_text())
elif what == "fail":
    sys.exit("it broke\\nfor this reason")
elif what == "hang":
    pathlib.Path(request).write_text("started")
    time.sleep(60)
    pathlib.Path(request).write_text("finished")
"""


class Device:
    """A device that this process serves; ``open`` makes a session on it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.told: list[str] = []
        names = ("upper", "fail", "hang")
        settings: dict[str, Any] = {
            "listener": self.listener,
            "key": KEY,
            "welcome": describe_this_machine("bench", names),
            "folder": folder,
            "most_bytes": 10_000_000,
            "tell": self.told.append,
            "tasks": {name: ("device_task", name) for name in names},
        }
        self.server = DeviceServer(**(settings | changes))
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()

    def open(self, **changes: Any) -> RemoteDevice:
        return connect(**({"host": "127.0.0.1", "port": self.port, "key": KEY} | changes))

    def close(self) -> None:
        self.server.close()
        self.thread.join(10)


@pytest.fixture
def make_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Device]]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "device_task.py").write_text(TASK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    made: list[Device] = []

    def make(**changes: Any) -> Device:
        made.append(Device(tmp_path / f"device{len(made)}", **changes))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture
def played() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """A function that starts a peer which does what it is told with the first connection; gives the port."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def play(act: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                try:
                    act(sock)
                except (OSError, RemoteDeviceError):
                    return  # the host is gone, as it should be

        threads.append(threading.Thread(target=accept, daemon=True))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield play
    for listener in listeners:
        listener.close()
