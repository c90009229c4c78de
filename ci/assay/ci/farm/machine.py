"""Turns on one machine: builds together, measurements alone, and only while nobody else keeps it busy."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.ci.gate.fitness import cpu_times
from assay.errors import AssayError

__all__ = ["BusyMachineError", "busy_share", "turn"]

_WATCH_SECONDS = 0.5
_PAUSE_SECONDS = 2.0


class BusyMachineError(AssayError):
    """A machine that others keep too busy for measurements."""


def _folder() -> Path:
    """For all workers of this user on this machine, whatever cluster they are of."""
    folder = Path(tempfile.gettempdir()) / f"assay-farm-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def turn(*, alone: bool, folder: Path | None = None) -> Iterator[None]:
    """Until the block ends, the machine is shared with jobs that are not ``alone``, or with none.

    A job that wants to be alone waits for those that run, and those that come later wait for it.
    """
    folder = folder or _folder()
    with (folder / "door").open("a") as door, (folder / "room").open("a") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(door, fcntl.LOCK_UN)
        yield


def busy_share(seconds: float = _WATCH_SECONDS) -> float | None:
    """The share of this machine's CPU time that others use for ``seconds``; None where it is hidden."""
    before = cpu_times()
    time.sleep(seconds)
    after = cpu_times()
    if before is None or after is None or after[2] <= before[2]:
        return None
    return (after[0] - before[0]) / (after[2] - before[2])


def wait_until_idle(most_load: float, seconds: float, share: Callable[[], float | None] = busy_share) -> None:
    """Return once others use no more than ``most_load``. Raises BusyMachineError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        busy = share()
        if busy is None or busy <= most_load:
            return
        if time.monotonic() + _PAUSE_SECONDS > deadline:
            raise BusyMachineError(
                f"The machine was {busy:.0%} busy with other work for {seconds:g} s; "
                f"at most {most_load:.0%} is allowed where something is timed."
            )
        time.sleep(_PAUSE_SECONDS)
