from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.ci.farm import execute as farm_execute
from assay.ci.farm.execute import Order, Outcome, execute
from assay.ci.farm.jobs import Job
from assay.ci.farm.machine import BusyMachineError


def _gone(process: str | int) -> bool:
    """Whether the process ends within some seconds."""
    path, deadline = Path(f"/proc/{process}"), time.monotonic() + 20
    while time.monotonic() < deadline:
        if not path.exists():
            return True
        time.sleep(0.05)
    return False


def _execute(
    job: Job, needed: dict[str, bytes] | None = None, **changes: Any
) -> tuple[Outcome, dict[str, bytes]]:
    order = Order(**({"job": job, "job_seconds": 120.0, "most_load": 1.0, "idle_seconds": 0.0} | changes))
    outcome, files = execute(msgspec.json.encode(order), needed or {})
    return msgspec.json.decode(outcome, type=Outcome), files


# A worker that starts a job's process, which waits for its task, and says which.
_WORKER = """
import os, subprocess, sys
command = [sys.executable, "-m", "assay.ci.farm.job_process", str(os.getpid())]
print(subprocess.Popen(command, stdin=subprocess.PIPE).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts a shell script in the place of the job's process."""

    def play(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return play


def test_an_error_of_the_job_itself(job: Job) -> None:
    outcome, files = _execute(msgspec.structs.replace(job, model="light-squeezent"))
    assert (outcome.status, outcome.exit_code, files) == ("failed", 3, {})
    assert outcome.message == "There is no model named 'light-squeezent'."


def test_files_come_along_and_those_that_are_made_go_back(job: Job, process: Any) -> None:
    process("cat > /dev/null; cp artifact.assay made; echo noise")
    outcome, files = _execute(job, {"artifact.assay": b"content"})
    assert (outcome.status, outcome.key, files) == ("done", job.key, {"made": b"content"})


def test_a_process_that_crashes(job: Job, process: Any) -> None:
    process("echo 'LLVM ERROR: no' >&2; kill -ABRT $$")
    outcome, files = _execute(job)
    assert (outcome.status, files) == ("crashed", {})
    assert outcome.message == "its process ended with signal 6 (LLVM ERROR: no)"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_process_that_hangs_is_ended_with_what_it_started(job: Job, process: Any, tmp_path: Path) -> None:
    process(f"sleep 60 & echo $! > {tmp_path}/child; cat > /dev/null; wait")
    outcome, _ = _execute(job, job_seconds=0.5)
    assert (outcome.status, outcome.message) == ("expired", "it did not end within 0.5 s")
    assert _gone(int((tmp_path / "child").read_text()))


def test_a_machine_that_is_never_idle(job: Job, monkeypatch: pytest.MonkeyPatch, process: Any) -> None:
    process("exit 1")

    def busy(most_load: float, seconds: float) -> None:
        raise BusyMachineError("The machine was 90% busy.")

    monkeypatch.setattr(farm_execute, "wait_until_idle", busy)
    outcome, _ = _execute(msgspec.structs.replace(job, kind="bench"))
    assert (outcome.status, outcome.message) == ("busy", "The machine was 90% busy.")
    # Neither a build nor a measurement on another machine needs this one for itself.
    assert _execute(job)[0].status == "crashed"
    assert _execute(msgspec.structs.replace(job, kind="bench", device="lab"))[0].status == "crashed"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_job_ends_with_its_worker() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(30)
    assert _gone(child)
