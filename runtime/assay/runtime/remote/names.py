"""Which device a name means: one of the devices file, ``HOST:PORT``, or ``NAME@HOST:PORT`` of a tracker.

The devices file is TOML, at the path in ``ASSAY_DEVICES``, or else ``assay/devices.toml`` in the user's
folder of settings (``$XDG_CONFIG_HOME`` or ``~/.config``)::

    [devices.raspberry]
    address = "192.168.1.7:9190"
    key-file = "raspberry.key"      # relative to this file
    target = "aarch64-neon"         # optional: what it must be able to run

    [devices.phone]
    tracker = "192.168.1.2:9191"
    key-file = "phones.key"
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import UnknownNameError, UsageError
from assay.runtime.remote.client import RemoteDevice, connect
from assay.runtime.remote.secret import NO_KEY, read_key
from assay.runtime.remote.tracker import Tracker

__all__ = ["Address", "DeviceEntry", "devices_file", "find_device", "open_device", "read_devices"]

VARIABLE = "ASSAY_DEVICES"
_FIELDS = ("address", "tracker", "key-file", "target")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that ``HOST:PORT`` is. Raises UsageError."""
        host, separator, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (host and separator and port.isdecimal() and 0 < int(port) < 65536):
            raise UsageError(f"An address is HOST:PORT, such as 192.168.1.7:9190, not {text!r}.")
        return cls(host=host, port=int(port))


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """A device: its own ``address``, or that of the ``tracker`` which knows it by ``name``.

    ``name`` is None where it may give itself any. ``target``: what it must be able to run, by name.
    """

    name: str | None
    address: Address | None = None
    tracker: Address | None = None
    key_file: Path | None = None
    target: str | None = None


def devices_file() -> Path:
    """Where the devices file is, or would be."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "assay" / "devices.toml"


def read_devices(path: Path | None = None) -> dict[str, DeviceEntry]:
    """The devices of the file at ``path``, by default ``devices_file()``; none where it does not exist.

    Raises UsageError for a file that cannot be read, or that says what is not known.
    """
    path = path or devices_file()
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The devices file {path} cannot be read: {error}.") from error
    _check_keys(path, "", content, ("devices",))
    devices = content.get("devices", {})
    if not isinstance(devices, dict):
        raise UsageError(f"{path}: devices are tables, such as [devices.raspberry].")
    return {name: _entry(path, name, fields) for name, fields in devices.items()}


def find_device(name: str, key_file: Path | None = None) -> DeviceEntry:
    """The device that ``name`` means, with the key in ``key_file`` where that is given.

    Raises UnknownNameError for a name that the devices file lacks, UsageError for no address.
    """
    known = read_devices()
    if name in known:
        entry = known[name]
    elif "@" in name:
        device, _, tracker = name.partition("@")
        entry = DeviceEntry(name=device, tracker=Address.parse(tracker))
    elif ":" in name:
        entry = DeviceEntry(name=None, address=Address.parse(name))
    elif known:
        raise UnknownNameError("remote device", name, known)
    else:
        raise UsageError(
            f"There is no remote device named {name!r}: {devices_file()} names none.",
            hint="Give its address, HOST:PORT, or NAME@HOST:PORT of a tracker.",
        )
    if key_file is None:
        return entry
    return DeviceEntry(
        name=entry.name, address=entry.address, tracker=entry.tracker, key_file=key_file, target=entry.target
    )


def open_device(entry: DeviceEntry, *, wait: float = 0.0) -> RemoteDevice:
    """A session on the device; raises RemoteDeviceError, and UsageError for a key that cannot be read."""
    key = read_key(entry.key_file) if entry.key_file is not None else NO_KEY
    if entry.address is not None:
        return connect(entry.address.host, entry.address.port, key, name=entry.name, wait=wait)
    assert entry.tracker is not None
    assert entry.name is not None
    with Tracker(entry.tracker.host, entry.tracker.port) as tracker:
        host, port = tracker.request(entry.name, wait)
        return connect(host, port, key, name=entry.name, wait=wait)


def _entry(path: Path, name: str, fields: Any) -> DeviceEntry:
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise UsageError(f"{path}: the fields of device {name} are texts.")
    _check_keys(path, f"device {name}: ", fields, _FIELDS)
    if ("address" in fields) == ("tracker" in fields):
        raise UsageError(f"{path}: device {name} needs an address or a tracker, and not both.")
    key_file = path.parent / Path(fields["key-file"]).expanduser() if "key-file" in fields else None
    return DeviceEntry(
        name=name,
        address=Address.parse(fields["address"]) if "address" in fields else None,
        tracker=Address.parse(fields["tracker"]) if "tracker" in fields else None,
        key_file=key_file,
        target=fields.get("target"),
    )


def _check_keys(path: Path, where: str, fields: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in fields:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            raise UsageError(f"{path}: {where}there is no field {key!r}.", hint=hint)
