"""Devices of other machines as ``assay devices`` lists them: those of the devices file, and of a tracker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError

if TYPE_CHECKING:
    from assay.runtime.remote.names import DeviceEntry

__all__ = ["RemoteRow", "remote_rows", "remote_table"]

_MOST_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class RemoteRow:
    """A device: the name to ask for it by, where it is, and what it says of itself.

    ``state``: ``free``, ``in use``, ``tracked`` (known to the tracker, not asked itself) or ``error``, with
    ``problem``.
    """

    name: str
    where: str
    state: str
    cpu: str = ""
    target: str | None = None
    emulator: str | None = None
    problem: str | None = None


def remote_rows(tracker: str | None, key_file: Path | None) -> list[RemoteRow]:
    """All devices of the devices file, asked one by one, and all that registered with ``tracker``.

    Raises UsageError for a file or an address that is none, and RemoteDeviceError where no tracker answers.
    """
    from assay.runtime.remote.names import Address, DeviceEntry, read_devices
    from assay.runtime.remote.tracker import Tracker

    entries = dict(read_devices())
    rows = []
    if tracker is not None:
        known = Address.parse(tracker)
        with Tracker(known.host, known.port) as connection:
            for found in connection.devices():
                name = f"{found.name}@{known}"
                address = Address(host=found.host, port=found.port)
                if key_file is None:
                    state = "free" if found.free else "in use"
                    rows.append(RemoteRow(name=name, where=str(address), state=state))
                else:
                    entries[name] = DeviceEntry(name=found.name, address=address, key_file=key_file)
    with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
        return [*rows, *pool.map(lambda item: _row(*item), entries.items())]


def _row(name: str, entry: DeviceEntry) -> RemoteRow:
    from assay.cli.remote_options import best_target
    from assay.runtime.remote.names import open_device

    where = str(entry.address) if entry.address else f"tracker {entry.tracker}"
    row = RemoteRow(name=name, where=where, state="free")
    try:
        with open_device(entry) as device:
            told = device.welcome
            row = replace(row, cpu=told.cpu, emulator=told.emulator)
            return replace(row, target=best_target(device))
    except AssayError as error:
        busy = " is busy" in error.message
        return replace(row, state="in use" if busy else "error", problem=error.message)


def remote_table(rows: list[RemoteRow]) -> Any:
    """The rows for people."""
    from rich.table import Table

    table = Table(title="Devices of other machines")
    for heading in ("device", "address", "state", "CPU", "best target"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "device")
    for row in rows:
        state = row.problem or row.state
        table.add_row(row.name, row.where, state, row.cpu, row.target or "")
    return table
