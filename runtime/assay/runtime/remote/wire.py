"""An authenticated connection: a greeting that proves the key on both sides, frames that prove their sender.

A frame is its length (4 bytes, big endian), HMAC-SHA256 under the sender's key of the session over the
frame's number, its kind and its content, one byte of kind, and the content. A frame that was changed, left
out, repeated or moved is noticed. Contents are not encrypted.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from assay.errors import RemoteDeviceError
from assay.runtime.remote.messages import VERSION, FileInfo
from assay.runtime.remote.secret import NONCE_BYTES, PROOF_BYTES, Nonces

__all__ = ["GREETING_SECONDS", "Connection", "accept_key", "digest_of", "prove_key"]

GREETING_SECONDS = 10.0
_MAGIC = b"assay-device"
_MESSAGE, _DATA = b"M", b"D"
_CHUNK = 1 << 20
_MOST_FRAME_BYTES = _CHUNK
_HEADER = struct.Struct(f">I{PROOF_BYTES}sc")
_ACCEPTED, _WRONG_KEY = b"\0", b"\1"


class Connection:
    """One side of a session on ``peer``; made by ``prove_key`` and ``accept_key``. A context manager.

    Everything raises RemoteDeviceError where the peer goes away, keeps silent for longer than the time
    allowed, or sends what it cannot have meant.
    """

    def __init__(self, sock: socket.socket, peer: str, send_key: bytes, receive_key: bytes) -> None:
        self.socket = sock
        self.peer = peer
        self._send_key, self._receive_key = send_key, receive_key
        self._sent = self._received = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session; the peer sees the end of the stream."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def send(self, message: msgspec.Struct) -> None:
        """Send one message."""
        self._send_frame(_MESSAGE, msgspec.msgpack.encode(message))

    def receive(self, kind: Any, seconds: float) -> Any:
        """The next message, which must be a ``kind``, within ``seconds``."""
        found, content = self._receive_frame(seconds)
        if found != _MESSAGE:
            raise self._nonsense("data where a message was due")
        try:
            return msgspec.msgpack.decode(content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._nonsense(f"a message that is none ({str(error)[:120]})") from None

    def send_file(self, path: Path, content: FileInfo) -> None:
        """Send the file at ``path``, whose digest and size are ``content``, in frames of data."""
        left = content.bytes
        with path.open("rb") as stream:
            while left:
                chunk = stream.read(min(_CHUNK, left))
                if not chunk:
                    raise RemoteDeviceError(f"{path.name} became shorter while it was sent to {self.peer}.")
                self._send_frame(_DATA, chunk)
                left -= len(chunk)

    def receive_file(self, stream: BinaryIO, content: FileInfo, seconds: float) -> None:
        """Write the frames of data that follow to ``stream``: ``content``, whole and with its digest."""
        hasher, left = hashlib.sha256(), content.bytes
        while left:
            kind, chunk = self._receive_frame(seconds)
            if kind != _DATA or not chunk or len(chunk) > left:
                raise self._nonsense(f"a file of {content.bytes} bytes that ended {left} bytes early")
            hasher.update(chunk)
            stream.write(chunk)
            left -= len(chunk)
        if hasher.hexdigest() != content.sha256:
            raise self._nonsense("a file whose digest is not the one announced")

    def _send_frame(self, kind: bytes, content: bytes) -> None:
        proof = _frame_proof(self._send_key, self._sent, kind, content)
        with self._lost_peer():
            self.socket.settimeout(60.0)
            self.socket.sendall(_HEADER.pack(len(content), proof, kind) + content)
        self._sent += 1

    def _receive_frame(self, seconds: float) -> tuple[bytes, bytes]:
        with self._lost_peer():
            length, proof, kind = _HEADER.unpack(self._exactly(_HEADER.size, seconds))
            if length > _MOST_FRAME_BYTES or kind not in (_MESSAGE, _DATA):
                raise self._nonsense("bytes that are no frame")
            content = self._exactly(length, seconds)
        if not hmac.compare_digest(proof, _frame_proof(self._receive_key, self._received, kind, content)):
            raise self._nonsense("a frame that the key does not vouch for")
        self._received += 1
        return kind, content

    def _exactly(self, count: int, seconds: float) -> bytes:
        return _receive_exactly(self.socket, count, seconds)

    @contextlib.contextmanager
    def _lost_peer(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise RemoteDeviceError(
                f"{self.peer} does not answer any more.", hint="Look whether it is still on, and reachable."
            ) from None
        except (EOFError, OSError) as error:
            raise RemoteDeviceError(
                f"{self.peer} went away in the middle of the session ({_reason(error)}).",
                hint="Look whether it is still on, and what its server said.",
            ) from error

    def _nonsense(self, what: str) -> RemoteDeviceError:
        return RemoteDeviceError(
            f"{self.peer} sent {what}.", hint="It is broken, another program, or somebody is in between."
        )


def digest_of(path: Path) -> FileInfo:
    """SHA-256 and size of the file at ``path``."""
    hasher, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return FileInfo(sha256=hasher.hexdigest(), bytes=size)


def prove_key(sock: socket.socket, key: bytes, peer: str) -> Connection:
    """Greet the device on ``sock`` as a host.

    Raises RemoteDeviceError where the other side is no device, has another key or speaks another version, or
    cannot prove that it knows the key.
    """

    def read(count: int) -> bytes:
        try:
            return _receive_exactly(sock, count, GREETING_SECONDS)
        except TimeoutError:
            raise RemoteDeviceError(
                f"{peer} said nothing for {GREETING_SECONDS:g} s.",
                hint="Something else listens there, or it hangs; `assay device serve` starts a device.",
            ) from None
        except (EOFError, OSError) as error:
            raise RemoteDeviceError(f"{peer} hung up during the greeting ({_reason(error)}).") from error

    magic = read(len(_MAGIC) + 1)
    if magic[:-1] != _MAGIC:
        raise RemoteDeviceError(
            f"{peer} is no device of Assay.", hint="Something else listens on that port; look at the address."
        )
    if magic[-1] != VERSION:
        raise RemoteDeviceError(
            f"{peer} speaks version {magic[-1]} of the protocol; this Assay speaks {VERSION}.",
            hint="Install the same version of Assay on both.",
        )
    nonces = Nonces(server=read(NONCE_BYTES), client=secrets.token_bytes(NONCE_BYTES))
    _send_greeting(sock, peer, nonces.client + nonces.proof(key, "client"))
    if read(1) != _ACCEPTED:
        said = "needs another key" if key else "needs a key"
        raise RemoteDeviceError(
            f"{peer} {said}.", hint="Give the file with the key that its server was started with: --key-file."
        )
    if not hmac.compare_digest(read(PROOF_BYTES), nonces.proof(key, "server")):
        raise RemoteDeviceError(
            f"{peer} cannot prove that it knows the key.",
            hint="Somebody else answers on that address; nothing was sent to it.",
        )
    keys = nonces.session_keys(key)
    return Connection(sock, peer, keys.client, keys.server)


def accept_key(sock: socket.socket, key: bytes, peer: str) -> Connection:
    """Greet the host on ``sock`` as a device. Raises RemoteDeviceError where it does not know the key."""
    server = secrets.token_bytes(NONCE_BYTES)
    _send_greeting(sock, peer, _MAGIC + bytes([VERSION]) + server)
    try:
        client = _receive_exactly(sock, NONCE_BYTES, GREETING_SECONDS)
        proof = _receive_exactly(sock, PROOF_BYTES, GREETING_SECONDS)
    except (EOFError, OSError) as error:
        raise RemoteDeviceError(f"{peer} did not greet ({_reason(error)}).") from error
    nonces = Nonces(client=client, server=server)
    if not hmac.compare_digest(proof, nonces.proof(key, "client")):
        _send_greeting(sock, peer, _WRONG_KEY)
        raise RemoteDeviceError(f"{peer} does not know the key.")
    _send_greeting(sock, peer, _ACCEPTED + nonces.proof(key, "server"))
    keys = nonces.session_keys(key)
    return Connection(sock, peer, keys.server, keys.client)


def _frame_proof(key: bytes, number: int, kind: bytes, content: bytes) -> bytes:
    return hmac.new(key, number.to_bytes(8, "big") + kind + content, hashlib.sha256).digest()


def _send_greeting(sock: socket.socket, peer: str, content: bytes) -> None:
    try:
        sock.settimeout(GREETING_SECONDS)
        sock.sendall(content)
    except OSError as error:
        raise RemoteDeviceError(f"{peer} hung up during the greeting ({_reason(error)}).") from error


def _receive_exactly(sock: socket.socket, count: int, seconds: float) -> bytes:
    """``count`` bytes; raises EOFError at the end of the stream, TimeoutError after ``seconds``' silence."""
    sock.settimeout(seconds)
    received = bytearray()
    while len(received) < count:
        part = sock.recv(min(count - len(received), 1 << 16))
        if not part:
            raise EOFError("it ended the connection")
        received += part
    return bytes(received)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
