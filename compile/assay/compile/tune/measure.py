"""Candidates measured in a worker process that may crash or hang without harm."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from assay.compile.pgo.compare import judge
from assay.compile.pgo.workload import WorkloadCase
from assay.compile.schedules.choices import Choice, Workload

__all__ = ["BUILDER", "CandidateMeasurer", "Measured", "Measurer", "measured_pairs"]

BUILDER = "assay.compile.tune.kernel:build_kernel"
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What became of a candidate.

    ``status``: ``ok``, ``wrong``, ``unbuildable``, ``crashed`` or ``timeout``. ``ratio``: seconds of the
    baseline over the candidate's, with the low end of its 95% interval; 0 where it was not measured.
    """

    status: str
    ratio: float = 0.0
    low: float = 0.0
    seconds: float = 0.0
    baseline_seconds: float = 0.0
    error: str | None = None


class CandidateMeasurer(Protocol):
    """What measures candidates; a context manager."""

    def __enter__(self) -> CandidateMeasurer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def measure(
        self, workload: Workload, choice: Choice, baseline: Choice, threads: int, seconds: float
    ) -> Measured:
        """What becomes of ``choice`` beside ``baseline``, in about ``seconds``."""
        ...


class Measurer:
    """Asks a worker, and starts another one when it is gone. A context manager."""

    def __init__(
        self, target: str, *, builder: str = BUILDER, timeout: float = _TIMEOUT_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._command = [sys.executable, "-m", "assay.compile.tune.worker", target, builder]
        self._timeout = timeout
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Measurer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def measure(
        self, workload: Workload, choice: Choice, baseline: Choice, threads: int, seconds: float
    ) -> Measured:
        """Build, check and time ``choice`` beside ``baseline``, for about ``seconds``."""
        request = {
            "workload": workload.key,
            "choice": choice.as_dict(),
            "baseline": baseline.as_dict(),
            "threads": threads,
            "seconds": seconds,
        }
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._read_line(process)
        except BrokenPipeError:
            line = b""
        if line is None:
            self._stop()
            return Measured(status="timeout", error=f"no answer in {self._timeout:g} s")
        if not line.endswith(b"\n"):
            code = process.wait()
            self._stop()
            reason = f"signal {-code}" if code < 0 else f"status {code}"
            return Measured(status="crashed", error=f"the worker ended with {reason}")
        return _measured(json.loads(line), threads)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
            )
        return self._process

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """One line, what there is of it when the worker ends, or None when time is up."""
        assert process.stdout is not None
        descriptor, received = process.stdout.fileno(), b""
        deadline = time.monotonic() + self._timeout
        while not received.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            part = os.read(descriptor, 1 << 16)
            if not part:
                break
            received += part
        return received

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _measured(found: dict[str, Any], threads: int) -> Measured:
    if found["status"] != "ok":
        return Measured(status=found["status"], error=found["error"])
    return measured_pairs(found["pairs"], threads)


def measured_pairs(pairs: Sequence[tuple[float, float]], threads: int) -> Measured:
    """What pairs of seconds (baseline, candidate) say of a candidate."""
    verdict = judge(pairs, WorkloadCase(name="", inputs={}), threads)
    return Measured(
        status="ok",
        ratio=verdict.ratio,
        low=verdict.low,
        seconds=verdict.second,
        baseline_seconds=verdict.first,
    )
