"""The process that measures one engine once: ``python -m assay.benchmarks.worker`` reads jobs on stdin.

Several jobs are of one engine and number of threads, and done one after the other. The process is fresh for
every round, because a process keeps its memory layout, and with it its luck, for life. An error ends it with
one line on stderr that says what went wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

import msgspec

from assay.benchmarks.job import Job, Report
from assay.benchmarks.process import serve
from assay.benchmarks.sampling import peak_memory, take_samples

__all__ = ["main"]


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


if __name__ == "__main__":
    sys.exit(main())
