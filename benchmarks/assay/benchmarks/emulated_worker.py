"""A device that QEMU plays: ``python -m assay.benchmarks.emulated_worker TARGET`` reads jobs on stdin.

It stands in for ``assay.benchmarks.worker`` on such a device. The artifact runs by the runtime for devices
without Python (``assay.compile.native``), each sample in a process of its own. With ``--describe`` it stands
in for ``assay.benchmarks.describe``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from assay.benchmarks.arrays import load_arrays, save_arrays
from assay.benchmarks.describe import DESCRIPTION, Description, EngineInfo
from assay.benchmarks.job import Job, Report
from assay.benchmarks.machine import fingerprint
from assay.benchmarks.peers import engines
from assay.benchmarks.process import serve
from assay.benchmarks.provenance import versions
from assay.compile.emulation.user_mode import UserMode, find_user_mode
from assay.compile.native import build_program
from assay.compile.targets import find_target
from assay.compile.targets.target import Target
from assay.errors import BenchmarkError, EmulatorError, UsageError
from assay.runtime.artifact import open_artifact
from assay.runtime.cpu import canonical_feature

__all__ = ["emulator_of", "main"]

_TIMES = re.compile(r"^least ([0-9.]+) s, mean ([0-9.]+) s, of ([0-9]+)$", re.MULTILINE)
_TIMEOUT_SECONDS = 1200
_MOST_SAMPLES = 50
# The program tells times to the microsecond.
_RESOLUTION_SECONDS = 1e-6
_OURS = "assay"


def emulator_of(target: Target) -> UserMode:
    """What plays ``target`` here. Raises UsageError, EmulatorError where it is not installed."""
    if not target.emulator:
        raise UsageError(f"Nothing plays {target.name}.", hint="assay targets lists what is emulated.")
    emulator = find_user_mode(target)
    if emulator is None:
        raise EmulatorError(f"{target.emulator[0]} is not installed.", hint="apt install qemu-user")
    return emulator


def main(arguments: list[str]) -> int:
    """Do the jobs on stdin, or write a description."""
    target = find_target(arguments[-1])
    if arguments[0] == "--describe":
        sys.stdin.buffer.read()
        Path(DESCRIPTION).write_bytes(msgspec.json.encode(_description(target)))
        return 0
    emulator = emulator_of(target)
    jobs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Job])
    return serve(jobs, lambda job: _measure(job, emulator))


def _description(target: Target) -> Description:
    """This machine with the CPU that is played."""
    emulator = emulator_of(target)
    machine = msgspec.structs.replace(
        fingerprint(),
        cpu=f"{target.cpu} ({emulator.description})",
        architecture=emulator.platform.machine,
        features=tuple(sorted({canonical_feature(feature) for feature in target.features})),
        virtualisation=emulator.version,
    )
    return Description(
        machine=machine,
        versions=versions(),
        engines={_OURS: EngineInfo(version=engines()[_OURS].version())},
        microarchitecture=None,
        cpu_model=machine.cpu,
    )


def _measure(job: Job, emulator: UserMode) -> Report:
    if job.engine != _OURS:
        raise BenchmarkError(f"{emulator.version} runs {_OURS} alone.")
    manifest = open_artifact(Path(job.artifact)).manifest
    inputs = load_arrays(Path(job.inputs))
    names = [item.name for item in manifest.inputs]
    files = [f"input{number}.npy" for number in range(len(names))]
    for file, name in zip(files, names, strict=True):
        np.save(file, inputs[name])
    command = [*emulator.command, str(build_program(emulator.platform)), str(Path(job.artifact).absolute())]
    command += ["--threads", str(job.threads)]
    folder = Path("outputs")
    folder.mkdir()
    start = time.perf_counter()
    first = _run([*command, "--output", str(folder), *files])
    loading = time.perf_counter() - start - first
    if job.outputs:
        found = [item.name for item in manifest.outputs]
        save_arrays(Path(job.outputs), {name: np.load(folder / f"{i}.npy") for i, name in enumerate(found)})
    calls = max(1, round(job.seconds / _MOST_SAMPLES / first))
    samples: list[float] = []
    start = time.perf_counter()
    while len(samples) < job.least_samples or (
        time.perf_counter() - start < job.seconds and len(samples) < _MOST_SAMPLES
    ):
        samples.append(_run([*command, "--repeat", str(calls), *files]))
    return Report(
        load_time=max(loading, _RESOLUTION_SECONDS),
        first_run_time=first,
        calls_per_sample=calls,
        samples=tuple(samples),
        peak_memory=None,
    )


def _run(command: list[str]) -> float:
    """Mean seconds of a run, as the program tells them. Raises BenchmarkError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"The emulated model gave no outputs in {_TIMEOUT_SECONDS} s.") from None
    found = _TIMES.search(done.stdout)
    if done.returncode or found is None:
        lines = done.stderr.strip().splitlines()
        raise BenchmarkError(lines[-1] if lines else f"it ended with status {done.returncode}")
    return max(float(found[2]), _RESOLUTION_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
