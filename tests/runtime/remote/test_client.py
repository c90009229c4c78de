"""Hosts against devices that are played: other programs, liars, and those that go away."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import pytest

from assay.errors import RemoteDeviceError
from assay.runtime.remote import client, wire
from assay.runtime.remote.client import connect
from assay.runtime.remote.messages import Stored, Wanted, Welcome, Working
from assay.runtime.remote.server import describe_this_machine

KEY = b"k" * 32
Play: TypeAlias = Callable[[Callable[[socket.socket], None]], int]


def _connect(port: int, **changes: Any) -> client.RemoteDevice:
    return connect(**({"host": "127.0.0.1", "port": port, "key": KEY} | changes))


def _device(*answers: msgspec.Struct, stay: bool = False) -> Callable[[socket.socket], None]:
    """A device that knows the key, welcomes, and then gives ``answers`` whatever it is asked."""

    def act(sock: socket.socket) -> None:
        connection = wire.accept_key(sock, KEY, "the host")
        for answer in (describe_this_machine("played"), *answers):
            connection.send(answer)
        if stay:
            sock.settimeout(10)
            while sock.recv(1 << 16):
                pass

    return act


def test_nothing_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RemoteDeviceError, match="cannot be reached: Connection refused"):
        _connect(port)


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_another_program_listens_there(played: Play, said: bytes) -> None:
    port = played(lambda sock: sock.sendall(said) or time.sleep(0.2))  # type: ignore[func-returns-value]
    with pytest.raises(RemoteDeviceError, match="is no device of Assay"):
        _connect(port)


def test_a_peer_that_hangs_up_at_once(played: Play) -> None:
    with pytest.raises(RemoteDeviceError, match="hung up during the greeting"):
        _connect(played(lambda sock: None))


def test_a_peer_that_says_nothing(played: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "GREETING_SECONDS", 0.2)
    with pytest.raises(RemoteDeviceError, match=r"said nothing for 0\.2 s"):
        _connect(played(lambda sock: time.sleep(2)))


def test_another_version(played: Play) -> None:
    def act(sock: socket.socket) -> None:
        sock.sendall(b"assay-device" + bytes([7]) + b"n" * 32)
        sock.recv(100)

    with pytest.raises(RemoteDeviceError, match="speaks version 7 of the protocol; this Assay speaks 1"):
        _connect(played(act))


def test_a_device_that_lets_everybody_in_but_does_not_know_the_key(played: Play) -> None:
    def act(sock: socket.socket) -> None:
        sock.sendall(b"assay-device" + bytes([1]) + b"n" * 32)
        sock.recv(100)
        sock.sendall(b"\0" + b"p" * 32)
        time.sleep(0.2)

    with pytest.raises(RemoteDeviceError, match="cannot prove that it knows the key"):
        _connect(played(act))


def test_a_device_of_another_name(played: Play) -> None:
    with pytest.raises(RemoteDeviceError, match="calls itself played"):
        _connect(played(_device()), name="raspberry")


def test_a_device_that_goes_away_while_it_works(played: Play) -> None:
    with (
        _connect(played(_device(Wanted(digests=()), Working()))) as device,
        pytest.raises(RemoteDeviceError, match="went away in the middle"),
    ):
        device.run("measure", b"", {}, seconds=10)


def test_a_device_that_stops_answering(played: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_SILENCE_SECONDS", 0.2)
    with (
        _connect(played(_device(Wanted(digests=()), stay=True))) as device,
        pytest.raises(RemoteDeviceError, match="does not answer any more"),
    ):
        device.run("measure", b"", {}, seconds=10)


def test_a_device_that_works_forever(played: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_SILENCE_SECONDS", 0.3)

    def act(sock: socket.socket) -> None:
        connection = wire.accept_key(sock, KEY, "the host")
        for answer in (describe_this_machine("played"), Wanted(digests=())):
            connection.send(answer)
        while True:
            connection.send(Working())
            time.sleep(0.05)

    with (
        _connect(played(act)) as device,
        pytest.raises(RemoteDeviceError, match=r"did not end a task whose 0\.1 s were over"),
    ):
        device.run("measure", b"", {}, seconds=0.1)


def test_an_answer_to_another_question(played: Play) -> None:
    with (
        _connect(played(_device(Stored(), stay=True))) as device,
        pytest.raises(RemoteDeviceError, match="answer to another question"),
    ):
        device.run("measure", b"", {}, seconds=10)


def test_a_welcome_that_is_none(played: Play) -> None:
    def act(sock: socket.socket) -> None:
        connection = wire.accept_key(sock, KEY, "the host")
        connection._send_frame(b"M", msgspec.msgpack.encode({"type": "Welcome", "name": 3}))
        time.sleep(0.2)

    with pytest.raises(RemoteDeviceError, match="a message that is none"):
        _connect(played(act))


def test_a_file_that_is_larger_than_it_may_be(played: Play, tmp_path: Any) -> None:
    from assay.runtime.remote.messages import Content, FileInfo

    answer = Content(content=FileInfo(sha256="0" * 64, bytes=1 << 40))
    with (
        _connect(played(_device(answer, stay=True))) as device,
        pytest.raises(RemoteDeviceError, match="too many"),
    ):
        device.read("report.json", tmp_path / "report", 1000)


def test_what_a_device_says_of_itself(played: Play) -> None:
    with _connect(played(_device(stay=True)), name="played") as device:
        assert isinstance(device.welcome, Welcome)
        assert device.cpu.machine == device.welcome.machine
        assert device.cpu.features == frozenset(device.welcome.features)
