"""What a worker does with a job: wait for its turn on the machine, and run it in a process of its own."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from assay.ci.farm.job_process import FAILURE, Failure, Task
from assay.ci.farm.jobs import Job
from assay.ci.farm.kinds import kinds
from assay.ci.farm.machine import BusyMachineError, turn, wait_until_idle

__all__ = ["Answer", "Order", "Outcome", "execute"]

_MOST_MESSAGE = 500


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job for a worker; limits are as in ``FarmSettings``. ``cache``: folder of the build cache there."""

    job: Job
    job_seconds: float
    most_load: float
    idle_seconds: float
    cache: str | None = None


Status: TypeAlias = Literal["done", "failed", "busy", "crashed", "expired"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of the job of that key.

    ``failed``: with an error of Assay's, of ``exit_code``. ``busy``: the machine never was idle.
    ``seconds``: of the process. ``host``: the name of the machine.
    """

    key: str
    status: Status
    message: str = ""
    exit_code: int = 0
    seconds: float
    host: str


Answer: TypeAlias = tuple[bytes, dict[str, bytes]]
"""An outcome as JSON, and files by name."""


def execute(order: bytes, needed: Mapping[str, bytes]) -> Answer:
    """Do the job of ``order`` (JSON) with the files ``needed``; runs on a worker."""
    given = msgspec.json.decode(order, type=Order)
    kind = kinds()[given.job.kind]
    # A job that measures on another machine leaves this one to others.
    alone = kind.times and given.job.device is None
    with turn(alone=alone):
        start = time.monotonic()
        if alone:
            try:
                wait_until_idle(given.most_load, given.idle_seconds)
            except BusyMachineError as error:
                return _answer(given.job, "busy", start, message=error.message), {}
        with tempfile.TemporaryDirectory(prefix="assay-farm-job-") as name:
            return _run(given, needed, Path(name), start)


def _run(given: Order, needed: Mapping[str, bytes], folder: Path, start: float) -> Answer:
    for file, content in needed.items():
        (folder / file).write_bytes(content)
    task = msgspec.json.encode(Task(job=given.job, cache=given.cache))
    command = [sys.executable, "-P", "-m", "assay.ci.farm.job_process", str(os.getpid())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            _, errors = process.communicate(task, timeout=given.job_seconds)
        except subprocess.TimeoutExpired:
            message = f"it did not end within {given.job_seconds:g} s"
            return _answer(given.job, "expired", start, message=message), {}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        return _failed(given.job, process.returncode, errors, folder, start), {}
    made = [path for path in folder.iterdir() if path.is_file() and path.name not in needed]
    return _answer(given.job, "done", start), {path.name: path.read_bytes() for path in made}


def _failed(job: Job, status: int, errors: bytes, folder: Path, start: float) -> bytes:
    try:
        failure = msgspec.json.decode((folder / FAILURE).read_bytes(), type=Failure)
    except (OSError, msgspec.MsgspecError):
        lines = errors.decode(errors="replace").strip().splitlines()
        last = lines[-1][:_MOST_MESSAGE] if lines else "no message"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return _answer(job, "crashed", start, message=f"its process ended with {how} ({last})")
    return _answer(job, "failed", start, message=failure.message, exit_code=failure.exit_code)


def _answer(job: Job, status: Status, start: float, *, message: str = "", exit_code: int = 0) -> bytes:
    seconds = time.monotonic() - start
    outcome = Outcome(
        key=job.key,
        status=status,
        message=message,
        exit_code=exit_code,
        seconds=seconds,
        host=platform.node(),
    )
    return msgspec.json.encode(outcome)
