"""Instrumented runs: an artifact on a workload, in a process of its own, into profile data."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from assay.compile.pgo.data import (
    KernelSample,
    ModelDigest,
    ProfileData,
    RunSample,
    read_profile,
    write_profile,
)
from assay.compile.pgo.workers import run_worker, save_cases, saved_cases
from assay.compile.pgo.workload import WorkloadCase
from assay.compile.targets.microarchitecture import cpu_model
from assay.errors import VerificationError

if TYPE_CHECKING:
    from assay.runtime.session import Model

__all__ = ["record_profile"]

_REPEATS = 7
_MOST_SECONDS = 5.0
_TIMEOUT_SECONDS = 900


def record_profile(
    artifact: Path, cases: Sequence[WorkloadCase], threads: int, folder: Path, *, level: str
) -> ProfileData:
    """Run ``artifact`` with its instrument on every case; raw profile and inputs lie in ``folder``.

    Raises VerificationError where the runs crash or take too long.
    """
    save_cases(folder, cases)
    raw = folder / f"raw-{threads}.json"
    run_worker(
        "assay.compile.pgo.record",
        [str(artifact), level, str(folder), str(threads), str(raw)],
        _TIMEOUT_SECONDS,
        VerificationError,
    )
    return read_profile(raw)


def with_workloads(
    profile: ProfileData, workloads: Mapping[tuple[tuple[str, int], ...], Mapping[str, str]]
) -> ProfileData:
    """``profile`` with the key of the workload of each kernel, from keys by sizes and kernel."""

    def keyed(sample: KernelSample) -> KernelSample:
        names = workloads.get(tuple(sorted(sample.sizes.items())), {})
        return msgspec.structs.replace(sample, workload=names.get(sample.kernel))

    return msgspec.structs.replace(profile, kernels=tuple(map(keyed, profile.kernels)))


def _profile(model: Model, cases: Sequence[WorkloadCase], threads: int) -> ProfileData:
    """The profile of a loaded model on ``cases``; each counts as often as it was seen."""
    machine, target = cpu_model(), model.level.target.name
    runs: list[RunSample] = []
    kernels: dict[tuple[str, tuple[tuple[int, ...], ...], int], KernelSample] = {}
    for index, case in enumerate(cases):
        once = model.kernel_times(case.inputs, repeats=1)
        repeats = max(2, min(_REPEATS, int(_MOST_SECONDS / max(once.unobserved[0], 1e-6))))
        times = model.kernel_times(case.inputs, repeats=repeats)
        place: dict[str, Any] = {
            "machine": machine,
            "target": target,
            "threads": threads,
            "sizes": dict(case.sizes),
        }
        seconds = statistics.median(times.unobserved)
        runs.append(RunSample(**place, runs=case.count, seconds=seconds * case.count))
        for position, call in enumerate(times.calls):
            shapes = tuple(a if isinstance(a, tuple) else () for a in call.arguments)
            taken = statistics.median(run.durations[position] for run in times.runs) * case.count
            key = (call.kernel, shapes, index)
            earlier = kernels.get(key)
            kernels[key] = KernelSample(
                **place,
                kernel=call.kernel,
                workload=None,
                shapes=shapes,
                calls=case.count + (earlier.calls if earlier else 0),
                seconds=taken + (earlier.seconds if earlier else 0.0),
            )
    info = model.manifest.model
    return ProfileData(
        model=ModelDigest(name=info.name, canonical_digest=info.canonical_digest),
        runs=tuple(runs),
        kernels=tuple(kernels.values()),
    )


def main(arguments: list[str]) -> int:
    """Worker: ``ARTIFACT LEVEL FOLDER THREADS OUT`` writes the raw profile to OUT."""
    from assay.runtime import load

    artifact, level, folder, threads, out = arguments
    model = load(artifact, level=level, threads=int(threads), verify=False)
    write_profile(Path(out), _profile(model, saved_cases(Path(folder)), int(threads)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
