"""Kernel times as a trace that Perfetto (ui.perfetto.dev) and Chrome (chrome://tracing) open.

The format is the JSON object of Google's "Trace Event Format": complete events, in microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from assay.runtime.kernels import Kernel, work_of

if TYPE_CHECKING:
    from assay.runtime.timing import KernelCall, KernelTimes

__all__ = ["encode_trace"]

_PROCESS = 1
_THREAD = 1


class _Complete(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cat: str
    ts: float
    dur: float
    args: dict[str, int | str]
    ph: str = "X"
    pid: int = _PROCESS
    tid: int = _THREAD


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    args: dict[str, str]
    ph: str = "M"
    pid: int = _PROCESS
    tid: int = _THREAD


class _Trace(msgspec.Struct, frozen=True, kw_only=True):
    traceEvents: list[_Metadata | _Complete]
    displayTimeUnit: str = "ms"
    otherData: dict[str, str]


def encode_trace(model: str, times: KernelTimes, kernels: Mapping[str, Kernel]) -> bytes:
    """The trace of every observed run, one after the other, each with its kernels inside."""
    events: list[_Metadata | _Complete] = [
        _Metadata(name="process_name", args={"name": model}),
        _Metadata(name="thread_name", args={"name": f"calling thread of {times.threads}"}),
    ]
    details = [_details(call, kernels) for call in times.calls]
    origin = times.runs[0].start
    for number, run in enumerate(times.runs):
        at = (run.start - origin) * 1e6
        events.append(
            _Complete(
                name=f"run {number + 1}", cat="run", ts=at, dur=run.seconds * 1e6, args={"model": model}
            )
        )
        events += [
            _Complete(name=call.kernel, cat="kernel", ts=at + start * 1e6, dur=duration * 1e6, args=args)
            for call, args, start, duration in zip(
                times.calls, details, run.starts, run.durations, strict=True
            )
        ]
    trace = _Trace(traceEvents=events, otherData={"model": model, "threads": str(times.threads)})
    return msgspec.json.encode(trace) + b"\n"


def _details(call: KernelCall, kernels: Mapping[str, Kernel]) -> dict[str, int | str]:
    """What is shown of a kernel that is clicked: its arguments, operations and bytes."""
    shapes = (
        "x".join(map(str, argument)) or "scalar" if isinstance(argument, tuple) else f"={argument}"
        for argument in call.arguments
    )
    found: dict[str, int | str] = {"arguments": ", ".join(shapes)}
    if call.kernel in kernels:
        work = work_of(kernels[call.kernel], call.arguments)
        if work.operations is not None:
            found["operations"] = sum(work.operations.values())
        found["bytes"] = sum(work.touched)
    return found
