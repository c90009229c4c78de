"""Processes that measure: how they are started, and how they answer."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from assay.benchmarks.machine import choose_cpus
from assay.benchmarks.sampling import limit_threads
from assay.errors import AssayError, BenchmarkError

__all__ = ["run_module", "serve"]


def run_module(module: str, given: bytes, timeout: float, where: Callable[[], str]) -> None:
    """Run ``python -m module`` in a fresh process with ``given`` on its stdin.

    Raises BenchmarkError, beginning with ``where()`` and with its last line of stderr, when it fails or takes
    longer than ``timeout`` seconds.
    """
    # -P keeps the current folder off the module path: what lies in it must not stand in for a package.
    command = [sys.executable, "-P", "-m", module]
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{where()}: it did not finish one round within {timeout:g} s.") from None
    if done.returncode:
        raise BenchmarkError(f"{where()}: {_failure(done)}")


def _failure(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1].strip() if lines else "it wrote nothing to stderr"
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return f"its process was ended by {name} ({last})"
    return last


class _Job(Protocol):
    """What every job says: its threads, the CPUs to stay on, and the path for its report."""

    @property
    def threads(self) -> int: ...

    @property
    def cpus(self) -> tuple[int, ...]: ...

    @property
    def report(self) -> str: ...


_J = TypeVar("_J", bound=_Job)


def serve(jobs: Sequence[_J], measure: Callable[[_J], object]) -> int:
    """Do the jobs, all with the threads of the first: 0, or 1 with one line on stderr where one fails.

    What ``measure`` gives is written as JSON to the path that its job names.
    """
    limit_threads(jobs[0].threads, jobs[0].cpus or choose_cpus(jobs[0].threads))
    for job in jobs:
        try:
            report = measure(job)
        except AssayError as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            return 1
        Path(job.report).write_bytes(msgspec.json.encode(report))
    return 0
