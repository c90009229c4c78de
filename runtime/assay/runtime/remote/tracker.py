"""The protocol of TVM's RPC tracker, for devices that register and hosts that look for one.

A message is its length (4 bytes, little endian) and JSON, as in ``tvm/rpc/tracker.py`` and ``base.py``; each
begins with a number, and each is answered. A tracker proves nothing to anybody: what it says is where to
look, and the device that is found there has to know the key.
"""

from __future__ import annotations

import json
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from assay.errors import RemoteDeviceError

__all__ = ["Registration", "TrackedDevice", "Tracker"]

_MAGIC = 0x2F271
_SUCCESS, _PUT, _REQUEST, _UPDATE_INFO, _SUMMARY, _GET_PENDING_MATCHKEYS = 0, 3, 4, 5, 6, 7
_LENGTH = struct.Struct("<i")
_MOST_BYTES = 1 << 20
_SECONDS = 10.0
_PERIOD_SECONDS = 2.0
# A place in the queue that was given away and not used for so many periods is offered again.
_UNUSED_PERIODS = 4


@dataclass(frozen=True, kw_only=True)
class TrackedDevice:
    """A device that registered under ``name``; ``free``: how many of that name wait for work."""

    name: str
    host: str
    port: int
    free: int


class Tracker:
    """A connection to the tracker at ``host``:``port``; a context manager.

    Everything raises RemoteDeviceError where none answers there, or what answers is none.
    """

    def __init__(self, host: str, port: int) -> None:
        self.address = f"{host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), _SECONDS)
            self._socket.sendall(_LENGTH.pack(_MAGIC))
            magic = _LENGTH.unpack(self._exactly(_LENGTH.size))[0]
        except OSError as error:
            raise RemoteDeviceError(
                f"The tracker at {self.address} cannot be reached: {error.strerror or error}.",
                hint="Look whether `assay device tracker` runs there.",
            ) from error
        if magic != _MAGIC:
            self.close()
            raise self._no_tracker()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up: what this connection registered is forgotten."""
        self._socket.close()

    def devices(self) -> list[TrackedDevice]:
        """All that registered, by name."""
        status, summary = self._pair(self.call([_SUMMARY], _SECONDS))
        try:
            queues, servers = summary["queue_info"], summary["server_info"]
            found = [
                TrackedDevice(
                    name=(name := str(server["key"]).removeprefix("server:")),
                    host=str(server["addr"][0]),
                    port=int(server["addr"][1]),
                    free=int(queues.get(name, {}).get("free", 0)),
                )
                for server in servers
                if str(server["key"]).startswith("server:")
            ]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise self._no_tracker() from None
        if status != _SUCCESS:
            raise self._no_tracker()
        return sorted(found, key=lambda device: (device.name, device.host, device.port))

    def request(self, name: str, seconds: float) -> tuple[str, int]:
        """Host and port of a free device called ``name``, once it is this host's turn, within ``seconds``."""
        if all(device.name != name for device in self.devices()):
            raise RemoteDeviceError(
                f"No device called {name} is registered with the tracker at {self.address}.",
                hint=f"assay devices --tracker {self.address} lists those that are.",
            )
        try:
            answer = self.call([_REQUEST, name, "", 1], max(seconds, 1.0))
        except TimeoutError:
            raise RemoteDeviceError(
                f"No device called {name} was free within {seconds:g} s, says the tracker at {self.address}.",
                hint="Wait longer with --wait SECONDS.",
            ) from None
        status, value = self._pair(answer)
        try:
            host, port, _ = value
            found = (str(host), int(port))
        except (TypeError, ValueError):
            raise self._no_tracker() from None
        if status != _SUCCESS:
            raise self._no_tracker()
        return found

    def call(self, message: list[Any], seconds: float) -> Any:
        """The answer to a message. Raises TimeoutError where it takes longer than ``seconds``."""
        try:
            self._socket.settimeout(seconds)
            content = json.dumps(message).encode()
            self._socket.sendall(_LENGTH.pack(len(content)) + content)
            size = _LENGTH.unpack(self._exactly(_LENGTH.size))[0]
            if not 0 <= size <= _MOST_BYTES:
                raise self._no_tracker()
            return json.loads(self._exactly(size))
        except TimeoutError:
            raise
        except OSError as error:
            raise RemoteDeviceError(
                f"The tracker at {self.address} went away ({error.strerror or error})."
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            raise self._no_tracker() from None

    def _pair(self, answer: Any) -> tuple[Any, Any]:
        if not isinstance(answer, list) or len(answer) != 2:
            raise self._no_tracker()
        return answer[0], answer[1]

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            part = self._socket.recv(count - len(received))
            if not part:
                raise ConnectionResetError("it ended the connection")
            received += part
        return received

    def _no_tracker(self) -> RemoteDeviceError:
        return RemoteDeviceError(f"What answers at {self.address} is no tracker.")


class Registration:
    """Keeps a device registered while it is free, by a thread of its own, also with a tracker that restarts.

    ``address``: the host that others are told, or None for the one that the tracker sees. ``busy`` says
    whether somebody has the device. ``tell`` is called with a line where the tracker comes or goes.
    """

    def __init__(
        self,
        tracker: tuple[str, int],
        name: str,
        port: int,
        *,
        address: str | None,
        busy: Callable[[], bool],
        tell: Callable[[str], None],
        period: float = _PERIOD_SECONDS,
    ) -> None:
        self._tracker, self._name, self._port, self._address = tracker, name, port, address
        self._busy, self._tell, self._period = busy, tell, period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up, so that the tracker forgets the device."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        last = ""
        while not self._stop.is_set():
            try:
                with Tracker(*self._tracker) as tracker:
                    info = {"key": f"server:{self._name}", "addr": [self._address, self._port]}
                    tracker.call([_UPDATE_INFO, info], _SECONDS)
                    self._tell(f"registered as {self._name} with the tracker at {tracker.address}")
                    self._offer(tracker)
            except (RemoteDeviceError, TimeoutError) as error:
                if str(error) != last:
                    self._tell(str(error).partition("\n")[0])
                last = str(error)
                self._stop.wait(self._period)

    def _offer(self, tracker: Tracker) -> None:
        """Offer the device whenever it is free, and again where an offer that was taken led to nothing."""
        key, unused = "", 0
        while not self._stop.wait(self._period if key else 0):
            if self._busy():
                key = key and "taken"
                self._stop.wait(self._period / 4)
                continue
            pending = tracker.call([_GET_PENDING_MATCHKEYS], _SECONDS)
            unused = 0 if isinstance(pending, list) and key in pending else unused + 1
            if key in ("", "taken") or unused >= _UNUSED_PERIODS:
                key, unused = f"{self._name}:{secrets.token_hex(8)}", 0
                tracker.call([_PUT, self._name, [self._port, key], self._address], _SECONDS)
