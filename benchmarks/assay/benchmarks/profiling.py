"""Where the time of a run goes: kernels by time, with the work of each against this machine's roofs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from assay.benchmarks.ceilings import Ceilings
from assay.errors import ArtifactError
from assay.results.statistics import median
from assay.runtime.kernels import Kernel, Work, work_of

if TYPE_CHECKING:
    from assay.runtime.timing import KernelCall, KernelTimes

__all__ = ["Bound", "KernelProfile", "Profile", "make_profile"]


class Bound(StrEnum):
    """What keeps a kernel from being faster, at best."""

    COMPUTE = "compute"
    MEMORY = "memory"
    OVERHEAD = "overhead"


@dataclass(frozen=True, kw_only=True)
class KernelProfile:
    """All calls of one kernel in one run.

    ``seconds``: the medians of its calls, added up. ``operations``: None where they are not known.
    ``touched`` bytes of arguments, each once a call, ``weights`` of them weights. ``roof_seconds``: the least
    that this machine could take; ``bound`` says what sets that. Both are None without ceilings.
    """

    kernel: str
    calls: int
    seconds: float
    share: float
    operations: int | None
    touched: int
    weights: int
    scheduled: bool
    roof_seconds: float | None
    bound: Bound | None

    @property
    def rate(self) -> float | None:
        """Operations a second."""
        return None if self.operations is None else self.operations / self.seconds

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.touched / self.seconds

    @property
    def intensity(self) -> float | None:
        """Operations a byte."""
        return self.operations / self.touched if self.operations and self.touched else None

    @property
    def roof_fraction(self) -> float | None:
        """The roof's time over the kernel's: 1 where it runs as fast as the machine can."""
        return None if self.roof_seconds is None else self.roof_seconds / self.seconds


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The kernels of a run, slowest first.

    ``kernel_seconds``: all kernels of a run, medians added up. ``unobserved``: the median of whole runs
    without the hook, ``observed`` with it, in seconds.
    """

    kernels: tuple[KernelProfile, ...]
    threads: int
    runs: int
    kernel_seconds: float
    unobserved: float
    observed: float
    own_calls: int
    ceilings: Ceilings | None

    @property
    def outside(self) -> float:
        """Seconds of an unobserved run that no kernel accounts for.

        The virtual machine's own functions, and passing arrays in and out. Negative where what the hook adds
        to the time of the kernels is more than that.
        """
        return self.unobserved - self.kernel_seconds

    @property
    def weights(self) -> int:
        """Bytes of weights that a run reads."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def weight_bandwidth(self) -> float:
        """Bytes of weights over an unobserved run, a second."""
        return self.weights / self.unobserved

    @property
    def weight_fraction(self) -> float | None:
        """``weight_bandwidth`` over that of the innermost memory that holds all weights."""
        if self.ceilings is None:
            return None
        return self.weight_bandwidth / self.ceilings.level_of(self.weights).bandwidth


def make_profile(times: KernelTimes, kernels: Mapping[str, Kernel], ceilings: Ceilings | None) -> Profile:
    """The profile of what was timed; ``kernels`` are the descriptions that the artifact holds.

    The roof of a call is the larger of two times: its operations at the peak of multiply-adds, and its bytes
    at the bandwidth of where they can be at best. Weights come from the innermost level that holds all
    weights of the run, since every run reads them all; everything else comes from the innermost level that
    holds what the call touches. Integer operations have no peak here, and count only towards the rate.
    """
    seconds = [median(durations) for durations in zip(*(run.durations for run in times.runs), strict=True)]
    works = [_work(call, kernels.get(call.kernel)) for call in times.calls]
    all_weights = _all_weights(times.calls, works)
    total = sum(seconds)
    calls: dict[str, list[int]] = {}
    for index, call in enumerate(times.calls):
        calls.setdefault(call.kernel, []).append(index)
    found = [
        _kernel_profile(name, places, times.calls, works, seconds, total, all_weights, kernels, ceilings)
        for name, places in calls.items()
    ]
    return Profile(
        kernels=tuple(sorted(found, key=lambda kernel: -kernel.seconds)),
        threads=times.threads,
        runs=len(times.runs),
        kernel_seconds=total,
        unobserved=median(times.unobserved),
        observed=median([run.seconds for run in times.runs]),
        own_calls=times.own_calls,
        ceilings=ceilings,
    )


def _work(call: KernelCall, kernel: Kernel | None) -> Work | None:
    """What a call does; None where the artifact does not describe it."""
    if kernel is None:
        return None
    try:
        return work_of(kernel, call.arguments)
    except ArtifactError as error:
        raise ArtifactError(f"{call.kernel}: {error.message}") from error


def _weights_of(call: KernelCall, work: Work | None) -> int:
    return 0 if work is None else sum(work.touched[index] for index in call.weights)


def _all_weights(calls: Sequence[KernelCall], works: Sequence[Work | None]) -> int:
    return sum(_weights_of(call, work) for call, work in zip(calls, works, strict=True))


def _kernel_profile(
    name: str,
    places: Sequence[int],
    calls: Sequence[KernelCall],
    works: Sequence[Work | None],
    seconds: Sequence[float],
    total: float,
    all_weights: int,
    kernels: Mapping[str, Kernel],
    ceilings: Ceilings | None,
) -> KernelProfile:
    operations: int | None = 0
    touched = weights = 0
    floors = {Bound.COMPUTE: 0.0, Bound.MEMORY: 0.0, Bound.OVERHEAD: 0.0}
    roof = 0.0
    for place in places:
        work, of_weights = works[place], _weights_of(calls[place], works[place])
        if work is None or work.operations is None:
            operations = None
        elif operations is not None:
            operations += sum(work.operations.values())
        size = sum(work.touched) if work is not None else 0
        touched, weights = touched + size, weights + of_weights
        if ceilings is not None:
            floats = (work.operations or {}).get("float", 0) if work is not None else 0
            compute = floats / ceilings.flops
            memory = of_weights / ceilings.level_of(all_weights).bandwidth
            memory += (size - of_weights) / ceilings.level_of(size).bandwidth
            floors[Bound.COMPUTE] += compute
            floors[Bound.MEMORY] += memory
            floors[Bound.OVERHEAD] += ceilings.launch
            roof += max(compute, memory)
    spent = sum(seconds[place] for place in places)
    known = ceilings is not None and name in kernels
    return KernelProfile(
        kernel=name,
        calls=len(places),
        seconds=spent,
        share=spent / total if total else 0.0,
        operations=operations,
        touched=touched,
        weights=weights,
        scheduled=name not in kernels or kernels[name].scheduled,
        roof_seconds=roof if known else None,
        bound=max(floors, key=lambda bound: floors[bound]) if known else None,
    )
