"""The host's side: a session on a device, which has it alone until it is closed."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.errors import RemoteDeviceError
from assay.progress import Progress, SilentProgress
from assay.runtime.cpu import Cpu
from assay.runtime.remote import messages
from assay.runtime.remote.messages import (
    Busy,
    Content,
    Done,
    FileInfo,
    Offer,
    Read,
    Refused,
    Run,
    Stored,
    Upload,
    Wanted,
    Welcome,
    Working,
)
from assay.runtime.remote.wire import GREETING_SECONDS, Connection, digest_of, prove_key

__all__ = ["RemoteDevice", "connect"]

# A device says that it is working every two seconds.
_SILENCE_SECONDS = 30.0
_BUSY_PAUSE_SECONDS = 2.0


class RemoteDevice:
    """A session on a device; a context manager. ``welcome`` is what the device says of itself.

    Every method raises RemoteDeviceError where the device goes away, refuses, or sends nonsense.
    """

    def __init__(self, connection: Connection, welcome: Welcome) -> None:
        self._connection = connection
        self.welcome = welcome
        self._known: dict[tuple[str, int, int], FileInfo] = {}

    def __enter__(self) -> RemoteDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session: the device is free for others."""
        self._connection.close()

    @property
    def address(self) -> str:
        """The device's name and where it is, for messages."""
        return self._connection.peer

    @property
    def cpu(self) -> Cpu:
        """The CPU that the device says it has."""
        told = self.welcome
        return Cpu(machine=told.machine, system=told.system, name=told.cpu, features=frozenset(told.features))

    def run(
        self,
        task: str,
        request: bytes,
        files: Mapping[str, Path],
        *,
        seconds: float,
        progress: Progress | None = None,
    ) -> Done:
        """Run ``task`` on the device with ``files`` under those names in its folder; uploads what it lacks.

        The answer says how it ended and which files it made, which ``read`` fetches until the next task.
        """
        contents = {name: self._content(path) for name, path in files.items()}
        self._upload({contents[name]: path for name, path in files.items()}, progress or SilentProgress())
        self._connection.send(Run(task=task, request=request, files=contents, seconds=seconds))
        deadline = time.monotonic() + seconds + _SILENCE_SECONDS
        while True:
            answer: Working | Done = self._receive(Working | Done)
            if isinstance(answer, Done):
                return answer
            if time.monotonic() > deadline:
                raise RemoteDeviceError(f"{self.address} did not end a task whose {seconds:g} s were over.")

    def read(self, name: str, destination: Path, most_bytes: int) -> None:
        """Fetch a file that the last task made. Refuses one of more than ``most_bytes``."""
        self._connection.send(Read(name=name))
        content: FileInfo = self._receive(Content).content
        if content.bytes > most_bytes:
            raise RemoteDeviceError(f"{self.address} sends {content.bytes} bytes as {name}: too many.")
        with destination.open("wb") as stream:
            self._connection.receive_file(stream, content, _SILENCE_SECONDS)

    def _content(self, path: Path) -> FileInfo:
        """Digest and size, computed once for a file that does not change."""
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self._known:
            self._known[key] = digest_of(path)
        return self._known[key]

    def _upload(self, files: Mapping[FileInfo, Path], progress: Progress) -> None:
        self._connection.send(Offer(contents=tuple(files)))
        wanted: set[str] = set(self._receive(Wanted).digests)
        missing = {content: path for content, path in files.items() if content.sha256 in wanted}
        if not missing:
            return
        size = sum(content.bytes for content in missing)
        with progress.step(f"upload {size / 1e6:.1f} MB to {self.welcome.name}"):
            for content, path in missing.items():
                self._connection.send(Upload(content=content))
                self._receive(Working)  # there is room
                self._connection.send_file(path, content)
                self._receive(Stored)

    def _receive(self, kind: Any) -> Any:
        answer: messages.Answer = self._connection.receive(messages.Answer, _SILENCE_SECONDS)
        if isinstance(answer, Refused):
            raise RemoteDeviceError(f"{self.address} refuses: {answer.message}")
        if not isinstance(answer, kind):
            raise RemoteDeviceError(f"{self.address} gave an answer to another question.")
        return answer


def connect(host: str, port: int, key: bytes, *, name: str | None = None, wait: float = 0.0) -> RemoteDevice:
    """A session on the device at ``host``:``port``; of a busy one, once it is free within ``wait`` seconds.

    ``name`` is the name that it must give itself. Raises RemoteDeviceError where nothing answers there, the
    key is another one, the device stays busy, or it is another device.
    """
    where = f"{host}:{port}"
    peer = f"The device {name} at {where}" if name else f"The device at {where}"
    deadline = time.monotonic() + wait
    while True:
        connection = _greeted(host, port, key, peer)
        try:
            answer: Welcome | Busy = connection.receive(Welcome | Busy, GREETING_SECONDS)
        except RemoteDeviceError:
            connection.close()
            raise
        if isinstance(answer, Welcome):
            break
        connection.close()
        if time.monotonic() + _BUSY_PAUSE_SECONDS > deadline:
            raise RemoteDeviceError(
                f"{peer} is busy: {answer.user} has had it for {answer.seconds:.0f} s.",
                hint="Wait for it with --wait SECONDS, or take another one.",
            )
        time.sleep(_BUSY_PAUSE_SECONDS)
    if name is not None and answer.name != name:
        connection.close()
        raise RemoteDeviceError(
            f"{peer} calls itself {answer.name}.", hint="Another device has that address now; look at it."
        )
    return RemoteDevice(connection, answer)


def _greeted(host: str, port: int, key: bytes, peer: str) -> Connection:
    try:
        sock = socket.create_connection((host, port), GREETING_SECONDS)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RemoteDeviceError(
            f"{peer} cannot be reached: {reason}.", hint="Look whether `assay device serve` runs there."
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return prove_key(sock, key, peer)
    except RemoteDeviceError:
        sock.close()
        raise
