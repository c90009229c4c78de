"""One process run: a fresh process that loads one side's artifact by that side's runtime, and measures it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from assay.benchmarks import sampling
from assay.errors import BenchmarkError
from assay.results.statistics import median

__all__ = ["Contender", "ProcessRun", "SideError", "run_process", "run_worker"]

_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What one process loads and measures: ``python`` is the interpreter of the side that it belongs to.

    ``inputs`` is an .npz file, ``cpus`` the logical CPUs to stay on; samples are taken for at least
    ``seconds``. ``environment`` holds variables for the process besides those of this one.
    """

    python: Path
    artifact: Path
    inputs: Path
    threads: int
    cpus: tuple[int, ...]
    seconds: float = 0.2
    least_samples: int = 3
    environment: dict[str, str] = field(default_factory=dict)


class SideError(BenchmarkError):
    """A process of ``side``, ``base`` or ``head``, failed."""

    def __init__(self, side: str, message: str) -> None:
        super().__init__(message)
        self.side = side


class ProcessRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one process measured: times in seconds, memory in bytes.

    ``load_time`` is from importing the runtime to a loaded model, ``first_run_time`` the run after that.
    ``samples`` are means over ``calls_per_sample`` runs after warming up.
    """

    load_time: float
    first_run_time: float
    calls_per_sample: int
    samples: tuple[float, ...]
    peak_memory: int | None

    @property
    def latency(self) -> float:
        """Seconds of a run: the median of the samples."""
        return median(self.samples)


def run_process(contender: Contender, *, timeout: float) -> ProcessRun:
    """Measure ``contender`` in one fresh process.

    Raises BenchmarkError where the process fails, takes longer than ``timeout`` seconds, or reports what is
    no report, or times that are not positive.
    """
    report = run_worker(contender, timeout=timeout)
    try:
        run = msgspec.json.decode(report, type=ProcessRun)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"Its process left no report that can be read: {error}.") from error
    times = (run.load_time, run.first_run_time, *run.samples)
    wrong = next((time for time in times if not (math.isfinite(time) and time > 0)), None)
    if not run.samples or wrong is not None:
        told = "no time" if wrong is None else f"{wrong:g} s"
        raise BenchmarkError(f"Its process reported {told}, which no run takes: a clock is wrong.")
    return run


def run_worker(
    contender: Contender,
    *,
    timeout: float,
    prefix: Sequence[str] = (),
    calls: int = 0,
    others: Sequence[Contender] = (),
) -> bytes:
    """The report of the worker, which ``prefix`` (such as ``valgrind``) may start.

    With ``calls`` it runs the model so often, then those of ``others``, and measures nothing. Raises
    BenchmarkError as ``run_process`` does.
    """
    with tempfile.TemporaryDirectory(prefix="assay-gate-run-") as name:
        report = Path(name) / "report.json"
        job: dict[str, Any] = {
            "artifact": str(contender.artifact),
            "inputs": str(contender.inputs),
            "threads": contender.threads,
            "cpus": contender.cpus,
            "seconds": contender.seconds,
            "least_samples": contender.least_samples,
            "sampling": sampling.__file__,
            "report": str(report),
            "calls": calls,
            "others": [(str(other.artifact), str(other.inputs)) for other in others],
        }
        # -P keeps the worker's folder off the module path: what lies there must not stand in for a package.
        command = [*prefix, str(contender.python), "-P", str(_WORKER)]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(job).encode(),
                capture_output=True,
                timeout=timeout,
                env={**os.environ, **contender.environment},
                cwd=name,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"Its process did not finish within {timeout:g} s.") from None
        except OSError as error:
            raise BenchmarkError(f"Its process cannot be started: {error.strerror or error}.") from None
        if done.returncode:
            raise BenchmarkError(_failure(done))
        try:
            return report.read_bytes()
        except OSError:
            raise BenchmarkError("Its process left no report.") from None


def _failure(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1].strip() if lines else "it wrote nothing to stderr"
    if done.returncode > 0:
        return last
    try:
        name = signal.Signals(-done.returncode).name
    except ValueError:
        name = f"signal {-done.returncode}"
    return f"Its process was ended by {name} ({last})."
