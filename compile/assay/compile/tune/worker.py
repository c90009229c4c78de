"""Measure candidates, one a line of JSON: ``python -m assay.compile.tune.worker TARGET BUILDER``.

A request has ``workload``, ``choice``, ``baseline``, ``threads`` and ``seconds``. The answer's ``status`` is
``ok`` with pairs of seconds (baseline, candidate), ``wrong`` where the numbers differ from NumPy's, or
``unbuildable``. A candidate that crashes or hangs takes this process with it, and nothing else.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from assay.compile.pgo.compare import interleaved
from assay.compile.schedules.choices import Choice, Workload
from assay.compile.targets import find_target
from assay.compile.targets.target import Target
from assay.compile.tune.checked_kernel import WrongError, checked_runner
from assay.compile.tune.kernel import Problem, make_problem, panel_width

Builder = Callable[[Workload, Choice, Target], Callable[..., None]]


class _Bench:
    """Builds and checks candidates of one workload at a time; its baseline is built once."""

    def __init__(self, target: Target, build: Builder) -> None:
        self._target = target
        self._build = build
        self._baseline: tuple[Any, Callable[[], None]] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Build, check and time one candidate beside its baseline."""
        from assay.runtime.drivers.threads import call_with_threads

        problem = _problem(request["workload"])
        threads = request["threads"]
        key = (request["workload"], request["baseline"], threads)
        try:
            if self._baseline is None or self._baseline[0] != key:
                self._baseline = key, self._checked(problem, request["baseline"], threads)
            candidate = self._checked(problem, request["choice"], threads)
        except WrongError as error:
            return {"status": "wrong", "error": str(error)}
        except Exception as error:
            # Whatever the compiler raises for a choice that it cannot do, the search goes on.
            return {"status": "unbuildable", "error": f"{type(error).__name__}: {str(error)[:200]}"}
        clock = time.thread_time if threads == 1 else time.perf_counter
        pairs = call_with_threads(
            threads, interleaved, self._baseline[1], candidate, clock, request["seconds"]
        )
        return {"status": "ok", "pairs": pairs}

    def _checked(self, problem: Problem, decided: dict[str, Any], threads: int) -> Callable[[], None]:
        """A function that runs the kernel, which gave what NumPy gives. Raises WrongError."""
        choice = Choice.from_dict(decided)
        kernel = self._build(problem.workload, choice, self._target)
        width = panel_width(problem.workload, choice, self._target.vector_unit)
        return checked_runner(kernel, *problem.operands(width), problem.expected, threads)


@functools.lru_cache(maxsize=1)
def _problem(key: str) -> Problem:
    """The operands and the reference of a workload, which takes its time for a large one."""
    return make_problem(Workload.parse(key))


def main(arguments: list[str]) -> int:
    """Answer requests from stdin until it ends; whatever else prints goes to stderr."""
    target = find_target(arguments[0])
    module, _, name = arguments[1].partition(":")
    bench = _Bench(target, getattr(importlib.import_module(module), name))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(bench.answer(json.loads(line))) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
