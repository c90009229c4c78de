"""One of two processes that take turns: ``python -P turn_worker.py`` is told what to do on stdin, line by
line.

The first line is the job, as JSON. The answer, when every subject is loaded and warm, is one line with what
that took and how many runs make a sample. The second line says how many runs make a sample on both sides.
Each line after that is the number of a subject, of which one sample is taken at once, and answered: seconds
of wall clock and of CPU time, per run. The end of stdin ends it.

It uses of the Assay that it finds what ``worker`` does.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import math
import os
import sys
from pathlib import Path
from time import perf_counter, process_time, thread_time
from types import ModuleType
from typing import Any, TextIO

__all__ = ["main"]

_WARM_UP_SECONDS = 0.02


def main() -> int:
    """Serve until stdin ends; 0, or 1 with one line on stderr."""
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    try:
        _serve(job, _module(job["sampling"]), _module(job["worker"]), answers)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _serve(job: dict[str, Any], sampling: ModuleType, worker: ModuleType, answers: TextIO) -> None:
    one_thread = job["threads"] == 1
    # One thread is pinned when all is loaded: until then, the two processes need not wait for each other.
    sampling.limit_threads(job["threads"], os.sched_getaffinity(0) if one_thread else job["cpus"])
    import assay.runtime  # noqa: F401 - what loading takes is told of each subject

    models, loads, firsts = [], [], []
    for subject in job["subjects"]:
        inputs = worker.load_inputs(subject["inputs"])
        start = perf_counter()
        model = worker.load_subject(subject, inputs, threads=job["threads"])
        loaded = perf_counter()
        model.run(inputs)
        firsts.append(perf_counter() - loaded)
        loads.append(loaded - start)
        models.append((model, inputs))
    os.sched_setaffinity(0, job["cpus"])
    fastest = [_warm_up(model, inputs) for model, inputs in models]
    peak = sampling.peak_memory()
    print(json.dumps({"loads": loads, "firsts": firsts, "fastest": fastest, "peak": peak}), file=answers)
    calls = json.loads(sys.stdin.readline())
    gc.disable()
    clock = thread_time if one_thread else process_time
    for line in sys.stdin:
        index = int(line)
        (model, inputs), count = models[index], calls[index]
        wall, cpu = perf_counter(), clock()
        for _ in range(count):
            model.run(inputs)
        cpu, wall = clock() - cpu, perf_counter() - wall
        print(json.dumps([wall / count, cpu / count]), file=answers)


def _warm_up(model: Any, inputs: dict[str, Any]) -> float:
    """Run until it is warm; seconds of the fastest run."""
    fastest, start = math.inf, perf_counter()
    while True:
        before = perf_counter()
        model.run(inputs)
        after = perf_counter()
        fastest = min(fastest, after - before)
        if after - start >= _WARM_UP_SECONDS:
            return max(fastest, 1e-9)


def _module(path: str) -> ModuleType:
    """The module in the file at ``path``, whatever packages are installed."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Taking the interpreter apart takes as long as loading a small model. The folder for temporary files is
    # removed by whoever started this process.
    os._exit(status)
