"""The folder of a farm: what each job gave, by its key, so that a run that was killed goes on."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from assay.ci.farm.jobs import Job
from assay.ci.farm.kinds import Result
from assay.errors import UsageError
from assay.runtime.atomic import replace_directory, storage_errors

__all__ = ["Entry", "Journal", "opened_journal"]

_ENTRY = "entry.json"


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job that was done: where, in how many seconds, and the SHA-256 of its files."""

    job: Job
    host: str
    seconds: float
    files: dict[str, str]


class Journal:
    """Results by the key of their job; made by ``opened_journal``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, job: Job) -> tuple[Entry, Result] | None:
        """What ``job`` gave, or None; one that was damaged since counts as none."""
        folder = self.folder / "jobs" / job.key
        try:
            entry = msgspec.json.decode((folder / _ENTRY).read_bytes(), type=Entry)
            result = {name: (folder / name).read_bytes() for name in entry.files}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        whole = _digests(result) == entry.files and entry.job == job
        return (entry, result) if whole else None

    def add(self, job: Job, result: Result, *, host: str, seconds: float) -> None:
        """Keep what ``job`` gave, whole or not at all. Raises StorageError."""
        entry = Entry(job=job, host=host, seconds=seconds, files=_digests(result))
        with replace_directory(self.folder / "jobs" / job.key) as folder:
            for name, content in result.items():
                (folder / name).write_bytes(content)
            (folder / _ENTRY).write_bytes(msgspec.json.format(msgspec.json.encode(entry), indent=2))


@contextmanager
def opened_journal(folder: Path) -> Iterator[Journal]:
    """The journal in ``folder``, for this process alone until the block ends.

    Raises UsageError where another process has it, StorageError where it cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another farm runs in the folder {folder}.", hint="Choose another one with --folder."
            ) from None
        yield Journal(folder)
    finally:
        os.close(descriptor)


def _digests(result: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in result.items()}
