"""Time of each kernel in a run, from the virtual machine's own hook before and after every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from assay.errors import ArtifactError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Argument", "KernelCall", "KernelTimes", "TimedRun", "is_kernel", "time_kernels"]

Argument: TypeAlias = tuple[int, ...] | int
"""What a kernel was called with: the shape of a tensor, or the value of a scalar."""

Instrument: TypeAlias = Callable[..., None]

# Functions of the virtual machine itself: memory, tuples, shapes.
_OWN = "vm."
_SHAPE_FUNCTION = "shape_func"


class Driver(Protocol):
    """What is timed."""

    def call(
        self, arrays: Sequence[npt.NDArray[Any]], threads: int, instrument: Instrument | None = None
    ) -> list[npt.NDArray[Any]]: ...

    def is_weight(self, tensor: Any) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class KernelCall:
    """One call of a kernel; ``weights`` are the positions of those arguments that are weights."""

    kernel: str
    arguments: tuple[Argument, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """Times of one observed run, in seconds.

    ``start`` is on the clock of ``time.perf_counter``; ``starts`` (since ``start``) and ``durations`` have
    one entry for each call of a kernel.
    """

    start: float
    seconds: float
    starts: tuple[float, ...]
    durations: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class KernelTimes:
    """The kernels that a run calls, in order; their times in several runs; what runs take unobserved.

    ``own_calls`` counts the virtual machine's own functions in a run. ``unobserved`` are seconds of whole
    runs without the hook, which took turns with ``runs``.
    """

    threads: int
    calls: tuple[KernelCall, ...]
    own_calls: int
    runs: tuple[TimedRun, ...]
    unobserved: tuple[float, ...]


def is_kernel(function: str) -> bool:
    """Whether a function that the virtual machine calls is a kernel, and not its own bookkeeping."""
    return not function.startswith((_OWN, _SHAPE_FUNCTION))


def time_kernels(
    driver: Driver, arrays: Sequence[npt.NDArray[Any]], threads: int, repeats: int
) -> KernelTimes:
    """Times of every kernel on ``arrays``, ``repeats`` runs observed and as many not, in turn.

    The hook costs about a microsecond inside the time of a kernel, and several between two. Raises
    ArtifactError when runs on the same arrays call different kernels.
    """
    driver.call(arrays, threads)
    calls, own_calls = _describe(driver, arrays, threads)
    runs: list[TimedRun] = []
    unobserved: list[float] = []
    for _ in range(repeats):
        start = perf_counter()
        driver.call(arrays, threads)
        unobserved.append(perf_counter() - start)
        runs.append(_timed_run(driver, arrays, threads, calls))
    return KernelTimes(
        threads=threads, calls=calls, own_calls=own_calls, runs=tuple(runs), unobserved=tuple(unobserved)
    )


def _describe(
    driver: Driver, arrays: Sequence[npt.NDArray[Any]], threads: int
) -> tuple[tuple[KernelCall, ...], int]:
    """The kernels of one run and what they are called with; reading that is too slow to be timed beside."""
    calls: list[KernelCall] = []
    own = 0

    def note(_function: Any, name: str, before: bool, _result: Any, *arguments: Any) -> None:
        nonlocal own
        if not before:
            return
        if not is_kernel(name):
            own += 1
            return
        weights = tuple(
            index
            for index, value in enumerate(arguments)
            if hasattr(value, "data_ptr") and driver.is_weight(value)
        )
        calls.append(
            KernelCall(kernel=str(name), arguments=tuple(map(_argument, arguments)), weights=weights)
        )

    driver.call(arrays, threads, note)
    return tuple(calls), own


def _argument(value: Any) -> Argument:
    return tuple(int(size) for size in value.shape) if hasattr(value, "shape") else int(value)


def _timed_run(
    driver: Driver, arrays: Sequence[npt.NDArray[Any]], threads: int, calls: tuple[KernelCall, ...]
) -> TimedRun:
    names: list[str] = []
    starts: list[float] = []
    durations: list[float] = []
    began = 0.0

    def clock(_function: Any, name: str, before: bool, _result: Any, *_arguments: Any) -> None:
        nonlocal began
        now = perf_counter()
        if not is_kernel(name):
            return
        if before:
            names.append(name)
            began = perf_counter()
            return
        starts.append(began)
        durations.append(now - began)

    start = perf_counter()
    driver.call(arrays, threads, clock)
    seconds = perf_counter() - start
    if names != [call.kernel for call in calls] or len(durations) != len(names):
        raise ArtifactError("The kernels that are called differ from run to run, so they cannot be timed.")
    return TimedRun(
        start=start,
        seconds=seconds,
        starts=tuple(moment - start for moment in starts),
        durations=tuple(durations),
    )
