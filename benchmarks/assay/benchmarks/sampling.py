"""What every process that measures does: keep to its CPUs, take samples, tell its memory.

With the standard library alone, so that the gate can load this file under any version of Assay.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter

__all__ = ["limit_threads", "peak_memory", "take_samples"]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "TVM_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Before the first sample: enough for caches, thread pools and the CPU's frequency to settle.
_WARM_UP_SECONDS = 0.1
# More would only make the records long; a sample of a fast model is the mean over several calls instead.
_MOST_SAMPLES = 400


def limit_threads(threads: int, cpus: Iterable[int]) -> None:
    """Tell every library to use ``threads`` threads, and stay on ``cpus``.

    To be called before any library is imported that reads these variables, or that starts threads.
    """
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def take_samples(call: Callable[[], object], seconds: float, least: int) -> tuple[int, list[float]]:
    """Warm up, then time ``call`` for at least ``seconds``: calls per sample, and seconds per call of each.

    At least ``least`` samples are taken, and not many more than 400: a fast call is timed several at once.
    """
    fastest = math.inf
    start = perf_counter()
    while True:
        before = perf_counter()
        call()
        after = perf_counter()
        fastest = min(fastest, after - before)
        if after - start >= _WARM_UP_SECONDS:
            break
    calls = max(1, math.ceil(seconds / _MOST_SAMPLES / max(fastest, 1e-9)))
    samples: list[float] = []
    # The garbage collector's pauses would be charged to whichever engine runs when they come.
    gc.collect()
    gc.disable()
    try:
        start = perf_counter()
        while True:
            before = perf_counter()
            for _ in range(calls):
                call()
            after = perf_counter()
            samples.append((after - before) / calls)
            if after - start >= seconds and len(samples) >= least:
                return calls, samples
    finally:
        gc.enable()


def peak_memory() -> int | None:
    """The largest resident size so far, in bytes; of this program alone, unlike getrusage's."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) * 1024 if line else None
