from __future__ import annotations

import importlib.util
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from assay.errors import RemoteDeviceError
from assay.runtime.remote.tracker import Registration, TrackedDevice, Tracker

Play: TypeAlias = Callable[[Callable[[socket.socket], None]], int]
MAGIC = struct.pack("<i", 0x2F271)


def _frame(answer: bytes) -> bytes:
    return struct.pack("<i", len(answer)) + answer


def _tracker(*answers: bytes, magic: bytes = MAGIC) -> Callable[[socket.socket], None]:
    """A tracker that gives these answers, whatever it is asked, and hangs up."""

    def act(sock: socket.socket) -> None:
        sock.recv(4)
        sock.sendall(magic)
        for answer in answers:
            sock.recv(1 << 16)
            sock.sendall(answer)

    return act


def test_the_devices_of_a_summary(played: Play) -> None:
    summary = {
        "queue_info": {"lab": {"free": 1, "pending": []}},
        "server_info": [
            {"key": "server:lab", "addr": ["10.0.0.7", 9190]},
            {"key": "client:host", "addr": ["10.0.0.9", 1]},
            {"key": "server:alone", "addr": ["10.0.0.8", 9190]},
        ],
    }
    port = played(_tracker(_frame(json.dumps([0, summary]).encode())))
    with Tracker("127.0.0.1", port) as tracker:
        assert tracker.devices() == [
            TrackedDevice(name="alone", host="10.0.0.8", port=9190, free=0),
            TrackedDevice(name="lab", host="10.0.0.7", port=9190, free=1),
        ]


@pytest.mark.parametrize(
    "answer",
    [
        _frame(b"{"),
        _frame(b"[0]"),
        _frame(b"\xff"),
        _frame(b'[0, {"queue_info": {}}]'),
        _frame(b'[0, {"queue_info": {}, "server_info": [{"key": "server:a", "addr": null}]}]'),
        _frame(b'[0, {"queue_info": [], "server_info": [{"key": "server:a", "addr": ["h", 1]}]}]'),
        _frame(b'[-1, {"queue_info": {}, "server_info": []}]'),
        struct.pack("<i", -5),
        struct.pack("<i", 1 << 30),
        b"[" * 100_000,
    ],
)
def test_what_is_no_tracker(played: Play, answer: bytes) -> None:
    with (
        Tracker("127.0.0.1", played(_tracker(answer))) as tracker,
        pytest.raises(RemoteDeviceError, match="is no tracker"),
    ):
        tracker.devices()


def test_another_program_in_the_place_of_a_tracker(played: Play) -> None:
    with pytest.raises(RemoteDeviceError, match="is no tracker"):
        Tracker("127.0.0.1", played(_tracker(magic=b"HTTP")))


def test_a_tracker_that_goes_away(played: Play) -> None:
    with (
        Tracker("127.0.0.1", played(_tracker())) as tracker,
        pytest.raises(RemoteDeviceError, match="went away"),
    ):
        tracker.devices()


def test_no_tracker_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RemoteDeviceError, match="cannot be reached"):
        Tracker("127.0.0.1", port)


@pytest.fixture
def real_tracker() -> Iterator[int]:
    """TVM's."""
    if importlib.util.find_spec("tornado") is None:
        pytest.skip("needs the extra `tracker`: pip install tornado")
    command = [sys.executable, "-m", "assay.cli.main", "device", "tracker", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["port"]
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_devices_register_with_tvms_tracker_and_take_turns(real_tracker: int) -> None:
    busy = [False]
    told: list[str] = []
    registration = Registration(
        ("127.0.0.1", real_tracker), "lab", 4321, address="127.0.0.1", busy=lambda: busy[0], tell=told.append,
        period=0.1,
    )  # fmt: skip
    with Tracker("127.0.0.1", real_tracker) as tracker:

        def free() -> int | None:
            return next((device.free for device in tracker.devices()), None)

        def becomes(wanted: int | None) -> bool:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if free() == wanted:
                    return True
                time.sleep(0.05)
            return False

        assert becomes(1)
        assert tracker.request("lab", 5) == ("127.0.0.1", 4321)
        busy[0] = True
        assert becomes(0)
        with (
            Tracker("127.0.0.1", real_tracker) as other,
            pytest.raises(RemoteDeviceError, match="was free within 1 s"),
        ):
            other.request("lab", 1)
        busy[0] = False
        assert becomes(1)
        with pytest.raises(RemoteDeviceError, match="No device called phone is registered"):
            tracker.request("phone", 1)
        registration.close()
        assert becomes(None)
    assert told == [f"registered as lab with the tracker at 127.0.0.1:{real_tracker}"]
