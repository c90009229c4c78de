"""The process that does one job: ``python -m assay.ci.farm.job_process PARENT`` reads a ``Task`` on stdin.

It works in the current folder, where the files that the job needs lie, and leaves its result there. It ends
with the process ``PARENT``, a worker: a machine whose worker was killed must not stay busy.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

import msgspec

from assay.ci.farm.jobs import Job
from assay.errors import AssayError

__all__ = ["FAILURE", "Failure", "Task", "main"]

FAILURE = "failure.json"
_PR_SET_PDEATHSIG = 1


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job, and the folder of the build cache (None: the user's)."""

    job: Job
    cache: str | None


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An error of Assay's: its message, and its exit code."""

    message: str
    exit_code: int


def main(arguments: list[str]) -> int:
    """Do the task on stdin; 0, or 1 with a ``Failure`` in the folder."""
    _end_with(int(arguments[0]))
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    from assay.ci.farm.kinds import kinds

    try:
        kinds()[task.job.kind].run(task.job, Path.cwd(), Path(task.cache) if task.cache else None)
    except AssayError as error:
        failure = Failure(message=" ".join(error.message.split()), exit_code=error.exit_code)
        Path(FAILURE).write_bytes(msgspec.json.encode(failure))
        return 1
    return 0


def _end_with(parent: int) -> None:
    """Have this process ended when its parent is; where that is gone already, now."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
