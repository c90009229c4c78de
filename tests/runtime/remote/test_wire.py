from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.errors import RemoteDeviceError
from assay.runtime.remote.messages import Answer, FileInfo, Ping, Request, Stored, Working
from assay.runtime.remote.wire import Connection, accept_key, digest_of, prove_key

KEY = b"k" * 32


class Relay:
    """Two connected ends, with what passes from the host to the device at hand before it goes on."""

    def __init__(self) -> None:
        self.host_socket, self._near = socket.socketpair()
        self._far, device_socket = socket.socketpair()
        pump = threading.Thread(target=self._greet, daemon=True)
        pump.start()
        accepted: list[Connection] = []
        device = threading.Thread(target=lambda: accepted.append(accept_key(device_socket, KEY, "the host")))
        device.start()
        self.host = prove_key(self.host_socket, KEY, "the device")
        device.join(10)
        pump.join(10)
        (self.device,) = accepted

    def _greet(self) -> None:
        for count, source, sink in (
            (45, self._far, self._near),
            (64, self._near, self._far),
            (33, self._far, self._near),
        ):
            received = b""
            while len(received) < count:
                received += source.recv(count - len(received))
            sink.sendall(received)

    def taken(self) -> bytes:
        """What the host sent last."""
        return self._near.recv(1 << 20)

    def give(self, content: bytes) -> None:
        self._far.sendall(content)

    def close(self) -> None:
        for each in (self.host_socket, self._near, self._far, self.device.socket):
            each.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay()
    yield made
    made.close()


def test_messages_arrive_as_they_were_sent(relay: Relay) -> None:
    relay.host.send(Ping())
    relay.give(relay.taken())
    assert relay.device.receive(Request, 5.0) == Ping()


def test_a_changed_frame_is_noticed(relay: Relay) -> None:
    relay.host.send(Stored())
    frame = bytearray(relay.taken())
    frame[-1] ^= 1
    relay.give(bytes(frame))
    with pytest.raises(RemoteDeviceError, match="does not vouch for"):
        relay.device.receive(Answer, 5.0)


def test_a_repeated_frame_is_noticed(relay: Relay) -> None:
    relay.host.send(Ping())
    frame = relay.taken()
    relay.give(frame + frame)
    relay.device.receive(Request, 5.0)
    with pytest.raises(RemoteDeviceError, match="does not vouch for"):
        relay.device.receive(Request, 5.0)


def test_a_frame_that_is_sent_back_is_noticed(relay: Relay) -> None:
    relay.host.send(Ping())
    relay._near.sendall(relay.taken())
    with pytest.raises(RemoteDeviceError, match="does not vouch for"):
        relay.host.receive(Request, 5.0)


@pytest.mark.parametrize("garbage", [b"\xff" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4])
def test_garbage_is_no_frame(relay: Relay, garbage: bytes) -> None:
    relay.give(garbage)
    with pytest.raises(RemoteDeviceError, match="bytes that are no frame"):
        relay.device.receive(Request, 5.0)


def test_a_message_of_another_kind_is_refused(relay: Relay) -> None:
    relay.host.send(Working())
    relay.give(relay.taken())
    with pytest.raises(RemoteDeviceError, match="a message that is none"):
        relay.device.receive(Request, 5.0)


def test_silence_has_an_end(relay: Relay) -> None:
    with pytest.raises(RemoteDeviceError, match="does not answer any more"):
        relay.device.receive(Request, 0.05)


def test_a_peer_that_goes_away_in_the_middle_of_a_frame(relay: Relay) -> None:
    relay.host.send(Ping())
    relay.give(relay.taken()[:20])
    relay._far.close()
    with pytest.raises(RemoteDeviceError, match="went away in the middle"):
        relay.device.receive(Request, 5.0)


def _sent(relay: Relay, path: Path) -> bytes:
    relay.host.send_file(path, digest_of(path))
    return relay.taken()


def test_files_arrive_whole(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 100)
    stream = io.BytesIO()
    relay.give(_sent(relay, tmp_path / "file"))
    relay.device.receive_file(stream, digest_of(tmp_path / "file"), 5.0)
    assert stream.getvalue() == (tmp_path / "file").read_bytes()


def test_a_file_that_is_not_the_announced_one(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"other content")
    relay.give(_sent(relay, tmp_path / "file"))
    announced = FileInfo(sha256="0" * 64, bytes=13)
    with pytest.raises(RemoteDeviceError, match="digest is not the one announced"):
        relay.device.receive_file(io.BytesIO(), announced, 5.0)


@pytest.mark.parametrize("size", [12, 14])
def test_a_file_that_is_shorter_or_longer(relay: Relay, tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"other content")
    relay.give(_sent(relay, tmp_path / "file"))
    relay._far.shutdown(socket.SHUT_WR)
    announced = FileInfo(sha256="0" * 64, bytes=size)
    with pytest.raises(RemoteDeviceError, match=r"ended 12 bytes early|went away"):
        relay.device.receive_file(io.BytesIO(), announced, 5.0)


def test_a_file_that_shrinks_while_it_is_sent(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    content = digest_of(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"con")
    with pytest.raises(RemoteDeviceError, match="became shorter"):
        relay.host.send_file(tmp_path / "file", content)
