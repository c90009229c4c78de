"""Candidates that are compiled here and measured on a device of another machine."""

from __future__ import annotations

import functools
import math
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from assay.compile.emit import emit_library, runtime_library
from assay.compile.schedules.choices import Choice, Workload
from assay.compile.targets.target import Target
from assay.compile.tune.kernel import Problem, compile_kernel, make_problem, panel_width
from assay.compile.tune.kernel_round import ANSWER, RUNTIME, Answer, Round
from assay.compile.tune.measure import Measured, measured_pairs
from assay.errors import RemoteDeviceError, UsageError
from assay.runtime.cpu import detect_cpu
from assay.runtime.remote.client import RemoteDevice
from assay.runtime.remote.messages import Done

__all__ = ["RemoteMeasurer", "TuningDevice"]

_TASK = "kernels"
_TIMEOUT_SECONDS = 60.0
_MOST_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TuningDevice:
    """A device, and what records of its measurements carry: its micro-architecture, its CPU."""

    session: RemoteDevice
    microarchitecture: str | None
    cpu_model: str


class RemoteMeasurer:
    """Measures on ``device`` as ``Measurer`` does here; a context manager, which leaves the device open.

    Raises UsageError for a device that runs no kernels. ``measure`` raises RemoteDeviceError.
    """

    def __init__(self, device: RemoteDevice, target: Target, *, timeout: float = _TIMEOUT_SECONDS) -> None:
        if _TASK not in device.welcome.tasks:
            raise UsageError(
                f"{device.address} measures artifacts and no kernels, so nothing can be tuned on it.",
                hint="Times of a device that is emulated say nothing of hardware.",
            )
        self._device, self._target, self._timeout = device, target, timeout
        self._scratch = tempfile.TemporaryDirectory(prefix="assay-remote-tune-")
        self._folder = Path(self._scratch.name)
        self._libraries: dict[tuple[str, str], Path] = {}

    def __enter__(self) -> RemoteMeasurer:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def measure(
        self, workload: Workload, choice: Choice, baseline: Choice, threads: int, seconds: float
    ) -> Measured:
        """Build ``choice`` here, check and time it beside ``baseline`` there, for about ``seconds``."""
        problem = _problem(workload.key)
        try:
            libraries = [self._library(problem, each) for each in (baseline, choice)]
        except RemoteDeviceError:
            raise
        except Exception as error:
            # Whatever the compiler raises for a choice that it cannot do, the search goes on.
            return Measured(status="unbuildable", error=f"{type(error).__name__}: {str(error)[:200]}")
        files = {f"{name}.so": path for name, path in zip(("baseline", "candidate"), libraries, strict=True)}
        files["a.npy"], files["expected.npy"] = self._operands(problem)
        for name, each in (("baseline", baseline), ("candidate", choice)):
            files[f"{name}_b.npy"] = self._packed(problem, each)
        there, here = self._device.cpu, detect_cpu()
        if (there.machine, there.system) == (here.machine, here.system):
            files[RUNTIME] = runtime_library()
        asked = Round(
            baseline="baseline.so", candidate="candidate.so", baseline_b="baseline_b.npy",
            candidate_b="candidate_b.npy", a="a.npy", expected="expected.npy", threads=threads,
            seconds=seconds,
        )  # fmt: skip
        done = self._device.run(_TASK, msgspec.json.encode(asked), files, seconds=self._timeout)
        return self._measured(done, threads)

    def _measured(self, done: Done, threads: int) -> Measured:
        if done.expired:
            return Measured(status="timeout", error=f"no answer in {self._timeout:g} s")
        if done.status < 0:
            hint = " (an instruction that its CPU lacks)" if done.status == -signal.SIGILL else ""
            return Measured(status="crashed", error=f"the worker ended with signal {-done.status}{hint}")
        if done.status:
            raise RemoteDeviceError(f"{self._device.address} cannot measure kernels: {done.message}")
        path = self._folder / ANSWER
        self._device.read(ANSWER, path, _MOST_ANSWER_BYTES)
        try:
            answer = msgspec.json.decode(path.read_bytes(), type=Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RemoteDeviceError(
                f"{self._device.address} sent an answer that is none: {error}."
            ) from error
        if answer.status != "ok":
            return Measured(status="wrong", error=answer.error)
        times = [each for pair in answer.pairs for each in pair]
        if not times or not all(math.isfinite(each) and 0 < each < self._timeout for each in times):
            raise RemoteDeviceError(f"{self._device.address} reports times that are not positive numbers.")
        return measured_pairs(answer.pairs, threads)

    def _library(self, problem: Problem, choice: Choice) -> Path:
        """The workload under ``choice``, compiled and linked for the device; the last ones are kept."""
        key = problem.workload.key, repr(sorted(choice.as_dict().items()))
        if key not in self._libraries:
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            built = compile_kernel(problem.workload, choice, self._target)
            self._libraries[key] = emit_library(built, self._target, folder)
        return self._libraries[key]

    def _operands(self, problem: Problem) -> tuple[Path, Path]:
        width = panel_width(problem.workload, Choice(), self._target.vector_unit)
        a = self._saved(problem, "a", lambda: problem.operands(width)[0])
        return a, self._saved(problem, "expected", lambda: problem.expected)

    def _packed(self, problem: Problem, choice: Choice) -> Path:
        width = panel_width(problem.workload, choice, self._target.vector_unit)
        return self._saved(problem, f"b{width}", lambda: problem.operands(width)[1])

    def _saved(self, problem: Problem, name: str, make: Callable[[], object]) -> Path:
        folder = self._folder / problem.workload.key.replace("/", "_")
        path = folder / f"{name}.npy"
        if not path.is_file():
            folder.mkdir(exist_ok=True)
            np.save(path, np.ascontiguousarray(make()))
        return path


@functools.lru_cache(maxsize=1)
def _problem(key: str) -> Problem:
    """The operands and the reference of a workload, which takes its time for a large one."""
    return make_problem(Workload.parse(key))
