"""Rounds on a remote device: files go there once, outputs and times come back and are checked."""

from __future__ import annotations

import math
import signal
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from assay.benchmarks.arrays import load_arrays
from assay.benchmarks.describe import DESCRIPTION, Description, Question
from assay.benchmarks.job import Job, Report
from assay.benchmarks.peers import Engine, ModelFiles
from assay.errors import BenchmarkError, RemoteDeviceError
from assay.progress import Progress, SilentProgress
from assay.results.record import Machine
from assay.runtime.artifact import open_artifact
from assay.runtime.cpu import Cpu
from assay.runtime.remote.client import RemoteDevice
from assay.runtime.remote.messages import Done

__all__ = ["RemotePlace"]

_DESCRIBE_SECONDS = 120.0
_MOST_REPORT_BYTES = 16 << 20
_MOST_OUTPUT_BYTES = 2 << 30
# Clocks of the two machines may run differently by this share, and by a moment.
_CLOCK_SHARE, _CLOCK_SECONDS = 1.02, 0.5

T = TypeVar("T")


class RemotePlace:
    """A device, as the harness needs it; ``device`` stays the caller's to close."""

    def __init__(self, device: RemoteDevice, progress: Progress | None = None) -> None:
        self._device = device
        self._progress = progress or SilentProgress()
        self._descriptions: dict[Question, Description] = {}

    @property
    def note(self) -> str | None:
        """Where it ran, and what is outside of the figures."""
        welcome = self._device.welcome
        played = (
            f", played by {welcome.emulator}: its times say nothing of hardware" if welcome.emulator else ""
        )
        return f"on the remote device {welcome.name}{played}; transfers are outside of the figures"

    @property
    def cpu(self) -> Cpu | None:
        """The device's."""
        return self._device.cpu

    def describe(self, model: str, *, canonical: bool) -> Description:
        """What the device is, and which engines it has for ``model``.

        Raises RemoteDeviceError where that is not what it said of itself at first.
        """
        question = Question(model=model, canonical=canonical)
        if question not in self._descriptions:
            done = self._device.run("describe", msgspec.json.encode(question), {}, seconds=_DESCRIBE_SECONDS)
            if done.status or done.expired:
                raise RemoteDeviceError(f"{self._device.address} cannot describe itself: {_failure(done)}")
            found = self._read_json(DESCRIPTION, Description)
            cpu, machine = self._device.cpu, found.machine
            if (machine.architecture, frozenset(machine.features)) != (cpu.machine, cpu.features):
                raise RemoteDeviceError(
                    f"{self._device.address} said that its CPU is {cpu.machine} ({cpu.name}), and then "
                    f"{machine.architecture} ({machine.cpu}), or one of other features.",
                    hint="What it says cannot be relied on; look at it.",
                )
            self._descriptions[question] = found
        return self._descriptions[question]

    def fingerprint(self) -> Machine:
        """What the device says."""
        return self._any_description().machine

    def versions(self) -> dict[str, str]:
        """What the device says."""
        return self._any_description().versions

    def engine_version(self, engine: Engine) -> str:
        """What the device says."""
        return self._any_description().engines[engine.name].version or engine.version()

    def unavailable(self, names: Iterable[str], files: ModelFiles) -> dict[str, str]:
        """What the device says."""
        found = self.describe(files.name, canonical=files.canonical is not None).engines
        where = f"on {self._device.welcome.name}"
        reasons = {}
        for name in names:
            if name not in found:
                reasons[name] = f"{where}: there is no such engine"
            elif found[name].unavailable is not None:
                reasons[name] = f"{where}: {found[name].unavailable}"
        return reasons

    def choose_cpus(self, threads: int) -> tuple[int, ...]:
        """None: the device chooses."""
        return ()

    def run(self, job: Job, timeout: float) -> Report:
        """A fresh process of the device. Raises RemoteDeviceError for times and outputs that cannot be."""
        files, there = _moved(job)
        start = time.monotonic()
        done = self._device.run(
            "measure", msgspec.json.encode([there]), files, seconds=timeout, progress=self._progress
        )
        elapsed = time.monotonic() - start
        where = f"{job.engine} failed on {job.model}, on {self._device.welcome.name}"
        if done.expired:
            raise BenchmarkError(f"{where}: it did not finish one round within {timeout:g} s.")
        if done.status:
            raise BenchmarkError(f"{where}: {_failure(done)}", hint=_hint(done))
        report = self._read_json(there.report, Report)
        problem = _implausible(report, elapsed)
        if problem:
            raise RemoteDeviceError(f"{self._device.address} reports {problem}.")
        Path(job.report).write_bytes(msgspec.json.encode(report))
        if job.outputs:
            self._fetch_outputs(there.outputs or "", Path(job.outputs))
        return report

    def _any_description(self) -> Description:
        return next(iter(self._descriptions.values()), None) or self.describe("", canonical=False)

    def _read_json(self, name: str, kind: type[T]) -> T:
        with tempfile.TemporaryDirectory(prefix="assay-remote-") as folder:
            path = Path(folder) / "answer.json"
            self._device.read(name, path, _MOST_REPORT_BYTES)
            try:
                return msgspec.json.decode(path.read_bytes(), type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise RemoteDeviceError(
                    f"{self._device.address} sent a {name} that is none: {str(error)[:200]}.",
                    hint="Install the same version of Assay on both.",
                ) from error

    def _fetch_outputs(self, name: str, destination: Path) -> None:
        self._device.read(name, destination, _MOST_OUTPUT_BYTES)
        try:
            load_arrays(destination)
        except (OSError, ValueError, zipfile.BadZipFile, MemoryError) as error:
            raise RemoteDeviceError(
                f"{self._device.address} sent outputs that are no arrays: {error}."
            ) from error


def _moved(job: Job) -> tuple[dict[str, Path], Job]:
    """The files of ``job`` by their names in the folder of the task, and the job with those names."""
    files = {"inputs.npz": Path(job.inputs)}
    artifact = Path(job.artifact)
    if artifact.is_file():
        files["model.assay"] = artifact
    else:
        opened = open_artifact(artifact, verify=False)
        files |= {f"artifact/{name}": region.path for name, region in opened.regions.items()}
    there: dict[str, Any] = {"canonical": None}
    if job.canonical and job.engine != "assay":
        # External data of canonical ONNX lie beside it.
        folder = Path(job.canonical).parent
        files |= {f"canonical/{path.name}": path for path in folder.iterdir() if path.is_file()}
        there["canonical"] = f"canonical/{Path(job.canonical).name}"
    return files, msgspec.structs.replace(
        job,
        artifact="model.assay" if artifact.is_file() else "artifact",
        inputs="inputs.npz",
        outputs="outputs.npz" if job.outputs else None,
        report="report.json",
        cpus=(),
        **there,
    )


def _implausible(report: Report, elapsed: float) -> str | None:
    """What of a report cannot be, by this machine's own clock."""
    times = (*report.samples, report.load_time, report.first_run_time)
    if not report.samples or not all(math.isfinite(each) and each > 0 for each in times):
        return "times that are not positive numbers"
    if report.calls_per_sample < 1:
        return f"samples of {report.calls_per_sample} calls"
    total = report.load_time + report.first_run_time + math.fsum(report.samples) * report.calls_per_sample
    if total > elapsed * _CLOCK_SHARE + _CLOCK_SECONDS:
        return f"{total:.3g} s of measurements in a round that took {elapsed:.3g} s"
    return None


def _failure(done: Done) -> str:
    if done.status < 0:
        try:
            name = signal.Signals(-done.status).name
        except ValueError:
            name = f"signal {-done.status}"
        return f"its process was ended by {name} ({done.message or 'it wrote nothing to stderr'})"
    return done.message or "it wrote nothing to stderr"


def _hint(done: Done) -> str | None:
    if done.status == -signal.SIGILL:
        return "Its CPU lacks an instruction that the device said it has."
    return None
