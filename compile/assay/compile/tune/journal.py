"""The journal of a tuning run: one line a candidate, on disk before the next one starts.

A run that is killed at any moment loses at most the candidate in flight: a line that was being written is
dropped when the journal is opened again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from assay.compile.schedules.choices import SCHEDULE_VERSION, Choice, Workload
from assay.errors import TuningRecordError
from assay.runtime.atomic import storage_errors

__all__ = ["Journal", "Trial", "opened_journal"]

JOURNAL_VERSION = 1


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One candidate and what became of it; times in seconds, ``ratio`` of the baseline over the candidate.

    ``width``: the panel width that the weights had already, None where it was free. ``confirmed``: measured
    again, for longer, and faster by more than noise.
    """

    version: int = JOURNAL_VERSION
    schedule_version: int = SCHEDULE_VERSION
    workload: str
    threads: int
    width: int | None
    choice: dict[str, Any]
    status: str
    ratio: float = 0.0
    low: float = 0.0
    seconds: float = 0.0
    baseline_seconds: float = 0.0
    confirmed: bool = False
    error: str | None = None
    cpu: str
    time: str
    versions: dict[str, str]

    def same_question(self, workload: Workload, threads: int, width: int | None) -> bool:
        """Whether the trial is one of these."""
        return (self.workload, self.threads, self.width) == (workload.key, threads, width)

    @property
    def decided(self) -> Choice:
        """The candidate."""
        return Choice.from_dict(self.choice)


class Journal:
    """Trials on disk and in memory; made by ``opened_journal``."""

    def __init__(self, path: Path, descriptor: int, trials: list[Trial]) -> None:
        self.path = path
        self._descriptor = descriptor
        self.trials = trials

    def add(self, trial: Trial) -> None:
        """Append a trial, and wait until it is on disk. Raises StorageError."""
        with storage_errors(self.path):
            os.write(self._descriptor, msgspec.json.encode(trial) + b"\n")
            os.fsync(self._descriptor)
        self.trials.append(trial)


@contextmanager
def opened_journal(path: Path, *, cpu: str, versions: dict[str, str]) -> Iterator[Journal]:
    """The journal at ``path``, for this process alone until the block ends; made where there is none.

    Holds the trials of this CPU, these versions and this version of the schedules; others stay in the file.
    Raises TuningRecordError for a journal that is damaged elsewhere than at its end, and StorageError.
    """
    import filelock

    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        trials, whole = _read(path)
        with storage_errors(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.ftruncate(descriptor, whole)
            known = [
                trial
                for trial in trials
                if trial.cpu == cpu
                and trial.versions == versions
                and trial.schedule_version == SCHEDULE_VERSION
            ]
            yield Journal(path, descriptor, known)
        finally:
            os.close(descriptor)


def now() -> str:
    """The time of a trial: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(path: Path) -> tuple[list[Trial], int]:
    """The trials of a journal, and the bytes of its whole lines."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    *lines, torn = data.split(b"\n")
    trials = []
    for number, line in enumerate(lines, start=1):
        try:
            trial = msgspec.json.decode(line, type=Trial)
            Workload.parse(trial.workload)
            Choice.from_dict(trial.choice)
        except (msgspec.MsgspecError, ValueError) as error:
            raise TuningRecordError(
                f"Line {number} of the tuning journal {path} is damaged: {error}.",
                hint="Remove the journal; what it holds is measured again.",
            ) from error
        trials.append(trial)
    return trials, len(data) - len(torn)
