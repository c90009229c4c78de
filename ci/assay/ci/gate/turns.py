"""Pairs of processes that take turns: base and head are measured within milliseconds of each other.

On a shared machine, the speed of one second says little about that of the next one. Two processes, one of
each side, load their artifacts, and then take samples in turn, on the same CPU, each waiting while the other
one runs; who goes first is drawn for each turn. The unit stays the process: a pair is one round, and enters
with one number for each side. What turns take away is what the machine did to one side and not to the other.
"""

from __future__ import annotations

import math
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

__all__ = ["TurnRun", "take_turns", "turn_order"]

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
    threads: int = 1

    @property
    def latency(self) -> float:
        """Seconds of a run, the median of the samples: of CPU time where there is one thread.

        With one thread, the wall clock adds the time in which the scheduler ran something else. With several,
        CPU time counts how they wait for each other, and the wall clock is what there is.
        """
        return self.cpu_time if self.threads == 1 else self.wall_time

    @property
    def wall_time(self) -> float:
        """Seconds of a run by the wall clock: the median of the samples."""
        return median(self.wall)

    @property
    def cpu_time(self) -> float:
        """Seconds of CPU time of a run: the median of the samples."""
        return median(self.cpu)


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The first answer: seconds of loads, of first and of fastest runs, and the peak of memory."""

    loads: tuple[float, ...]
    firsts: tuple[float, ...]
    fastest: tuple[float, ...]
    peak: int | None


def take_turns(
    pairs: Sequence[tuple[Contender, Contender]],
    generator: random.Random,
    *,
    timeout: float,
    in_turn: bool = True,
) -> list[tuple[TurnRun, TurnRun]]:
    """Measure ``pairs`` of base and head in one fresh process for each side: the runs of each pair.

    All of a side share its interpreter, environment, threads and CPUs. Without ``in_turn``, one process
    takes all samples of a subject before the other does. Raises SideError where a process fails, answers
    nonsense, or all of it takes longer than ``timeout`` seconds.
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
        fastest = [min(both) for both in zip(ready["base"].fastest, ready["head"].fastest, strict=True)]
        calls = [max(1, round(_SAMPLE_SECONDS / one)) for one in fastest]
        for one in workers.values():
            one.write(calls)
        taken: dict[str, list[list[tuple[float, float]]]] = {side: [[] for _ in pairs] for side in sides}
        for index, pair in enumerate(pairs):
            count = _samples(pair, calls[index] * fastest[index])
            for side in turn_order(count, generator, in_turn=in_turn):
                workers[side].write(index)
                taken[side][index].append(workers[side].read(tuple[float, float]))
    return [
        (
            _run(base, ready["base"], taken["base"][index], index, calls),
            _run(head, ready["head"], taken["head"][index], index, calls),
        )
        for index, (base, head) in enumerate(pairs)
    ]


def _samples(pair: tuple[Contender, Contender], seconds: float) -> int:
    """How many samples of ``seconds`` each are taken of a pair."""
    most = max(each.seconds for each in pair)
    return max(*(each.least_samples for each in pair), min(_MOST_SAMPLES, math.ceil(most / seconds)))


def turn_order(count: int, generator: random.Random, *, in_turn: bool) -> list[str]:
    """Whose turn it is, ``count`` times for each side."""
    sides = ("base", "head")
    if in_turn:
        return [side for _ in range(count) for side in generator.sample(sides, 2)]
    return [side for side in generator.sample(sides, 2) for _ in range(count)]


def _run(
    contender: Contender, ready: _Ready, taken: list[tuple[float, float]], index: int, calls: list[int]
) -> TurnRun:
    return TurnRun(
        load_time=ready.loads[index],
        first_run_time=ready.firsts[index],
        calls_per_sample=calls[index],
        wall=tuple(wall for wall, _ in taken),
        cpu=tuple(cpu for _, cpu in taken),
        peak_memory=ready.peak,
        threads=contender.threads,
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
        "subjects": [each.subject() for each in contenders],
        "threads": first.threads,
        "cpus": first.cpus,
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
                env={**os.environ, **first.environment, "TMPDIR": folder},
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
