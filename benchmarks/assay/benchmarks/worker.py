"""The process that measures one engine once: ``python -m assay.benchmarks.worker`` reads jobs on stdin.

Several jobs are of one engine and number of threads, and done one after the other. The process is fresh for
every round, because a process keeps its memory layout, and with it its luck, for life. An error ends it with
one line on stderr that says what went wrong.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import msgspec

from assay.benchmarks.job import Job, Report
from assay.benchmarks.process import peak_memory, serve

__all__ = ["main", "take_samples"]

# Before the first sample: enough for caches, thread pools and the CPU's frequency to settle.
_WARM_UP_SECONDS = 0.1
# More would only make the records long; a sample of a fast model is the mean over several calls instead.
_MOST_SAMPLES = 400


def main() -> int:
    """Do the jobs on stdin; 0, or 1 with one line on stderr."""
    return serve(msgspec.json.decode(sys.stdin.buffer.read(), type=list[Job]), _measure)


def _measure(job: Job) -> Report:
    from assay.benchmarks.arrays import load_arrays, save_arrays
    from assay.benchmarks.peers import ModelFiles, engines

    inputs = load_arrays(Path(job.inputs))
    engine = engines()[job.engine]
    canonical = Path(job.canonical) if job.canonical else None
    files = ModelFiles(name=job.model, artifact=Path(job.artifact), canonical=canonical)
    start = perf_counter()
    session = engine.load(files, job.threads)
    loaded = perf_counter()
    outputs = session.run(inputs)
    ran = perf_counter()
    calls, samples = take_samples(lambda: session.run(inputs), job.seconds, job.least_samples)
    peak = peak_memory()
    if job.outputs:
        save_arrays(Path(job.outputs), outputs)
    return Report(
        load_time=loaded - start,
        first_run_time=ran - loaded,
        calls_per_sample=calls,
        samples=tuple(samples),
        peak_memory=peak,
    )


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


if __name__ == "__main__":
    sys.exit(main())
