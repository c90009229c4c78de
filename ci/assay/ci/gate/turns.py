"""Pairs of processes that take turns: base and head are measured within milliseconds of each other.

On a shared machine, the speed of one second says little about that of the next one. Two processes, one of
each side, load their artifacts, and then take samples in turn, on the same CPU, each waiting while the other
one runs; who goes first is drawn for each turn. The unit stays the process: a pair is one round, and enters
with one number for each side. What turns take away is what the machine did to one side and not to the other.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from assay.benchmarks import sampling
from assay.ci.gate import worker
from assay.ci.gate.processes import Contender, SideError
from assay.results.statistics import median

__all__ = ["TurnRun", "take_turns"]

_WORKER = Path(__file__).with_name("turn_worker.py")
# Long against a switch of processes, short against a time slice of the scheduler.
_SAMPLE_SECONDS = 0.001
_MOST_SAMPLES = 50

_T = TypeVar("_T")


class TurnRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one process measured of one subject: times in seconds, memory of the whole process in bytes.

    ``wall`` and ``cpu`` are samples, means over ``calls_per_sample`` runs: by the wall clock, and of the CPU
    time that the process was charged.
    """

    load_time: float
    first_run_time: float
    calls_per_sample: int
    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    peak_memory: int | None

    @property
    def latency(self) -> float:
        """Seconds of a run by the wall clock: the median of the samples."""
        return median(self.wall)

    @property
    def cpu_time(self) -> float:
        """Seconds of CPU time of a run: the median of the samples."""
        return median(self.cpu)


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The first answer: seconds of loads and of first runs, runs per sample, and the peak of memory."""

    loads: tuple[float, ...]
    firsts: tuple[float, ...]
    calls: tuple[int, ...]
    peak: int | None


def take_turns(
    pairs: Sequence[tuple[Contender, Contender]], generator: random.Random, *, timeout: float
) -> list[tuple[TurnRun, TurnRun]]:
    """Measure ``pairs`` of base and head in one fresh process for each side: the runs of each pair.

    All of a side share its interpreter, environment, threads and CPUs. Raises SideError where a process
    fails, answers nonsense, or all of it takes longer than ``timeout`` seconds.
    """
    sides = {"base": [base for base, _ in pairs], "head": [head for _, head in pairs]}
    with ExitStack() as stack:
        workers: dict[str, _Worker] = {}
        for side in generator.sample(sorted(sides), 2):
            workers[side] = stack.enter_context(_started(side, sides[side]))
        watch = threading.Timer(timeout, _give_up, (workers, timeout))
        watch.daemon = True
        watch.start()
        stack.callback(watch.cancel)
        ready = {side: one.read(_Ready) for side, one in workers.items()}
        calls = [min(both) for both in zip(ready["base"].calls, ready["head"].calls, strict=True)]
        for one in workers.values():
            one.write(calls)
        taken: dict[str, list[list[tuple[float, float]]]] = {side: [] for side in workers}
        for index, (base, head) in enumerate(pairs):
            for side in workers:
                taken[side].append([])
            for number in range(_MOST_SAMPLES):
                for side in generator.sample(sorted(workers), 2):
                    workers[side].write(index)
                    taken[side][index].append(workers[side].read(tuple[float, float]))
                spent = min(sum(wall for wall, _ in taken[side][index]) * calls[index] for side in workers)
                enough = max(base.least_samples, head.least_samples)
                if number + 1 >= enough and spent >= max(base.seconds, head.seconds):
                    break
    return [
        (
            _run(ready["base"], taken["base"], index, calls),
            _run(ready["head"], taken["head"], index, calls),
        )
        for index in range(len(pairs))
    ]


def _run(ready: _Ready, taken: list[list[tuple[float, float]]], index: int, calls: list[int]) -> TurnRun:
    return TurnRun(
        load_time=ready.loads[index],
        first_run_time=ready.firsts[index],
        calls_per_sample=calls[index],
        wall=tuple(wall for wall, _ in taken[index]),
        cpu=tuple(cpu for _, cpu in taken[index]),
        peak_memory=ready.peak,
    )


@dataclass(kw_only=True)
class _Worker:
    """A process of one side, and why it was ended, if it was."""

    side: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    ended: str | None = None

    def write(self, value: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(msgspec.json.encode(value) + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self._failure() from None

    def read(self, kind: type[_T]) -> _T:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._failure()
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError as error:
            raise SideError(self.side, f"Its process answered what is no answer: {error}.") from error

    def _failure(self) -> SideError:
        status = self.process.wait()
        if self.ended is not None:
            return SideError(self.side, self.ended)
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else "it wrote nothing to stderr"
        if status >= 0:
            return SideError(self.side, last)
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return SideError(self.side, f"Its process was ended by {name} ({last}).")


def _give_up(workers: dict[str, _Worker], timeout: float) -> None:
    for one in workers.values():
        one.ended = f"Its process did not finish within {timeout:g} s."
        one.process.kill()


@contextmanager
def _started(side: str, contenders: Sequence[Contender]) -> Iterator[_Worker]:
    first = contenders[0]
    job = {
        "subjects": [{"artifact": str(each.artifact), "inputs": str(each.inputs)} for each in contenders],
        "threads": first.threads,
        "cpus": first.cpus,
        "sample_seconds": _SAMPLE_SECONDS,
        "sampling": sampling.__file__,
        "worker": worker.__file__,
    }
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory(prefix="assay-gate-run-") as folder:
        try:
            # -P keeps the worker's folder off the module path.
            process = subprocess.Popen(
                [str(first.python), "-P", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **first.environment},
                cwd=folder,
            )
        except OSError as error:
            raise SideError(side, f"Its process cannot be started: {error.strerror or error}.") from None
        with process:
            started = _Worker(side=side, process=process, errors=errors)
            try:
                started.write(job)
                yield started
                assert process.stdin is not None
                process.stdin.close()
                process.wait()
            except BaseException:
                process.kill()
                raise
