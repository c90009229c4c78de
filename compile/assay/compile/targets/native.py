"""``native``: the most capable target whose instructions this machine has."""

from __future__ import annotations

from collections.abc import Iterable

from assay.compile.targets.target import Target
from assay.errors import CpuFeatureError
from assay.runtime.cpu import Cpu, canonical_feature, canonical_machine, detect_cpu

__all__ = ["native_target"]


def native_target(known: Iterable[Target], cpu: Cpu | None = None) -> Target:
    """The last of ``known`` (ordered from plain to capable) that ``cpu``, by default this one, can run.

    Raises CpuFeatureError where none fits.
    """
    cpu = cpu or detect_cpu()
    fitting = [
        target
        for target in known
        if canonical_machine(target.triple.partition("-")[0]) == cpu.machine
        and {canonical_feature(feature) for feature in target.features} <= cpu.features
    ]
    if not fitting:
        raise CpuFeatureError(
            "No target fits this machine's CPU.",
            hint="Name one with --target to compile for another machine; `assay targets` lists them.",
        )
    return fitting[-1]
