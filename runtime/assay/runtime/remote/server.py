"""The device's side: one session at a time, tasks in fresh processes, contents kept by digest."""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from assay.errors import AssayError, RemoteDeviceError
from assay.runtime.cpu import detect_cpu
from assay.runtime.remote import messages
from assay.runtime.remote.messages import Busy, Content, FileInfo, Refused, Stored, Wanted, Welcome, Working
from assay.runtime.remote.store import ContentStore
from assay.runtime.remote.tasks import TASKS, run_task
from assay.runtime.remote.wire import Connection, accept_key

__all__ = ["DeviceServer", "describe_this_machine"]

# A host that says nothing for so long loses the device to others; builds in between take a while.
_IDLE_SECONDS = 600.0
_MOST_GREETINGS = 16
_UPLOAD_SECONDS = 60.0


def describe_this_machine(name: str, tasks: Mapping[str, object] = TASKS) -> Welcome:
    """What a device that is this machine says of itself."""
    cpu = detect_cpu()
    return Welcome(
        name=name,
        cpu=cpu.name,
        machine=cpu.machine,
        system=cpu.system,
        features=tuple(sorted(cpu.features)),
        emulator=None,
        tasks=tuple(tasks),
        assay_version=version("assay"),
    )


@dataclass(kw_only=True)
class _User:
    """Who has the device, and since when."""

    peer: str
    since: float


@dataclass(kw_only=True)
class DeviceServer:
    """Serves ``welcome``'s device on ``listener`` to whoever knows ``key``, one session at a time.

    ``folder``: where contents and the tasks' folders lie. ``tell`` is called with a line for every session
    that begins, ends or is refused.
    """

    listener: socket.socket
    key: bytes
    welcome: Welcome
    folder: Path
    most_bytes: int
    tell: Callable[[str], None] = print
    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: TASKS)
    idle_seconds: float = _IDLE_SECONDS

    def __post_init__(self) -> None:
        self._store = ContentStore(self.folder / "contents", self.most_bytes)
        self._lock = threading.Lock()
        self._user: _User | None = None
        self._greetings = threading.BoundedSemaphore(_MOST_GREETINGS)
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether somebody has the device."""
        return self._user is not None

    def serve(self) -> None:
        """Accept sessions until ``close``."""
        while not self._closed:
            try:
                sock, address = self.listener.accept()
            except OSError:
                if self._closed:
                    return
                raise
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if not self._greetings.acquire(blocking=False):
                sock.close()  # whoever opens many connections and says nothing must not take the machine down
                continue
            threading.Thread(
                target=self._greet, args=(sock, f"{address[0]}:{address[1]}"), daemon=True
            ).start()

    def close(self) -> None:
        """Accept no more sessions."""
        self._closed = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _greet(self, sock: socket.socket, peer: str) -> None:
        with sock:
            try:
                try:
                    connection = accept_key(sock, self.key, peer)
                finally:
                    self._greetings.release()
                self._session(connection)
            except AssayError as error:
                self.tell(f"{peer}: {error.message}")

    def _session(self, connection: Connection) -> None:
        with self._lock:
            user, since = self._user, time.monotonic()
            if user is None:
                self._user = _User(peer=connection.peer, since=since)
        if user is not None:
            connection.send(Busy(user=user.peer, seconds=since - user.since))
            return
        self.tell(f"{connection.peer}: session begins")
        try:
            with tempfile.TemporaryDirectory(prefix="session-", dir=self.folder) as name:
                _Session(self, connection, self._store, Path(name)).serve()
        finally:
            with self._lock:
                self._user = None
            self.tell(f"{connection.peer}: session ends after {time.monotonic() - since:.1f} s")


class _Session:
    """Requests of one host."""

    def __init__(
        self, server: DeviceServer, connection: Connection, store: ContentStore, folder: Path
    ) -> None:
        self._server, self._connection, self._store, self._folder = server, connection, store, folder
        self._task: Path | None = None
        self._made: dict[str, FileInfo] = {}

    def serve(self) -> None:
        """Answer until the host hangs up. Raises RemoteDeviceError where it does so in the middle."""
        self._connection.send(self._server.welcome)
        while self._readable(self._server.idle_seconds) and not self._at_end():
            request: messages.Request = self._connection.receive(messages.Request, 60.0)
            try:
                self._answer(request)
            except RemoteDeviceError:
                raise
            except AssayError as error:
                self._connection.send(Refused(message=str(error)[:2000]))

    def _answer(self, request: messages.Request) -> None:
        match request:
            case messages.Offer():
                missing = {each.sha256 for each in request.contents if not self._store.has(each)}
                self._connection.send(Wanted(digests=tuple(sorted(missing))))
            case messages.Upload():
                self._receive(request.content)
            case messages.Run():
                self._run(request)
            case messages.Read():
                self._give(request.name)
            case messages.Ping():
                self._connection.send(Working())

    def _receive(self, content: FileInfo) -> None:
        """Store a content; one that does not fit is refused before its data come."""
        self._store.add(
            content,
            lambda stream: self._connection.receive_file(stream, content, _UPLOAD_SECONDS),
            ready=lambda: self._connection.send(Working()),
        )
        self._connection.send(Stored())

    def _run(self, request: messages.Run) -> None:
        module = self._server.tasks.get(request.task)
        if module is None:
            known = ", ".join(self._server.tasks)
            raise AssayError(f"This device has no task {request.task!r}; it has {known}.")
        if self._task is not None:
            shutil.rmtree(self._task, ignore_errors=True)
        self._task = Path(tempfile.mkdtemp(prefix="task-", dir=self._folder))
        self._store.lay_out(request.files, self._task)
        done = run_task(module, request.request, self._task, request.seconds, self._still_wanted)
        self._made = done.files
        self._connection.send(done)

    def _still_wanted(self) -> bool:
        """Tell the host that the task goes on; False where the host is gone."""
        if self._readable(0) and self._at_end():
            raise RemoteDeviceError(f"{self._connection.peer} went away; its task was ended.")
        self._connection.send(Working())
        return True

    def _give(self, name: str) -> None:
        content = self._made.get(name)
        if content is None or self._task is None:
            raise AssayError(f"The last task made no file {name!r}.")
        self._connection.send(Content(content=content))
        self._connection.send_file(self._task / name, content)

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._connection.socket], [], [], seconds)[0])

    def _at_end(self) -> bool:
        try:
            return not self._connection.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return True
