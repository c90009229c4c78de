"""TVM's own search, MetaSchedule, for kernels that no schedule of ours matches.

Its stock builder starts worker processes that first import ``tvm.s_tir.tensor_intrin``, which takes longer
than they are given, so that every candidate times out. Here candidates are built and run in this process, and
that module, which asks for the stack at every intrinsic, is imported once, with a cheaper ``inspect.stack``.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from assay.compile.lower import llvm_target
from assay.compile.targets import find_target
from assay.compile.targets.target import Target
from assay.compile.tvm_import import import_tensor_intrinsics, import_tvm

__all__ = ["search", "search_apart"]

_TRIALS = 32
_TRIALS_A_ROUND = 8
_REPEATS = 5
# To start TVM, and to finish the candidates of the last round.
_GRACE_SECONDS = 180.0
_TOLERANCE = 1e-4


def search(function: Any, target: Target, *, seconds: float, seed: int = 0) -> tuple[Any, float] | None:
    """The fastest form of an unscheduled PrimFunc of fixed shapes that was found in about ``seconds``.

    Gives the scheduled PrimFunc, and how many times as fast it is as TVM's plain loops; None where nothing
    right is faster. Its outputs were compared with those of the plain loops.
    """
    tvm = import_tvm()
    import_tensor_intrinsics()
    from tvm.s_tir import meta_schedule

    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    # MetaSchedule wants to know how many cores it schedules for.
    wanted = tvm.target.Target({**dict(llvm_target(target).export()), "num-cores": 1})
    deadline = time.monotonic() + seconds
    built: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="assay-metaschedule-") as folder, _quiet():
        database = meta_schedule.tune_tir(
            module,
            wanted,
            folder,
            max_trials_global=_TRIALS,
            num_trials_per_iter=_TRIALS_A_ROUND,
            builder=_builder(tvm, built, deadline),
            runner=_runner(tvm, built, function),
            cost_model="random",
            strategy="replay-trace",
            database="memory",
            # The others write a log, or remove the files of candidates, of which there are none.
            measure_callbacks=[meta_schedule.measure_callback.AddToDatabase()],
            seed=seed,
        )
        best = database.query_ir_module(module, wanted, "main")
    if best is None:
        return None
    gain = _gain(tvm, module, best, function, target)
    return None if gain is None or gain <= 1 else (best["main"], gain)


def _gain(tvm: Any, plain: Any, best: Any, function: Any, target: Target) -> float | None:
    """How many times as fast as ``plain`` the other is; None where its numbers differ."""
    arguments = _arguments(tvm, function)
    outputs, seconds = [], []
    for module in (plain, best):
        built = tvm.compile(module, target=llvm_target(target))
        built["main"](*arguments)
        outputs.append([argument.numpy().copy() for argument in arguments])
        seconds.append(min(_seconds(tvm, built, arguments)))
    for expected, actual in zip(*outputs, strict=True):
        if not np.allclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            return None
    return float(seconds[0] / seconds[1])


def _arguments(tvm: Any, function: Any) -> list[Any]:
    """Seeded arrays for every parameter, outputs among them; integers are 0 and 1, valid as indices."""
    generator = np.random.default_rng(0)
    arrays = []
    for parameter in function.params:
        buffer = parameter if hasattr(parameter.ty, "shape") else function.buffer_map[parameter]
        shape, dtype = [int(size) for size in buffer.ty.shape], np.dtype(str(buffer.ty.dtype))
        drawn = generator.standard_normal(shape) if dtype.kind == "f" else generator.integers(0, 2, shape)
        arrays.append(tvm.runtime.tensor(drawn.astype(dtype)))
    return arrays


def _builder(tvm: Any, built: dict[str, Any], deadline: float) -> Any:
    """Compiles candidates in this process into ``built``, and none once time is up."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder

    @derived_object
    class InProcess(PyBuilder):  # type: ignore[misc]
        def build(self, build_inputs: Sequence[Any]) -> list[Any]:
            return [self._build(each) for each in build_inputs]

        def _build(self, each: Any) -> Any:
            if time.monotonic() >= deadline:
                return BuilderResult(None, "time is up")
            name = str(len(built))
            try:
                built[name] = tvm.compile(each.mod, target=each.target)
            except Exception as error:
                # Whatever the compiler raises for a candidate, the search goes on.
                return BuilderResult(None, str(error)[:200])
            return BuilderResult(name, None)

    return InProcess()


def _runner(tvm: Any, built: dict[str, Any], function: Any) -> Any:
    """Times what was built, on the arrays of ``_arguments``."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult

    arguments = _arguments(tvm, function)

    @derived_object
    class Done(PyRunnerFuture):  # type: ignore[misc]
        def __init__(self, seconds: list[float]) -> None:
            super().__init__()
            self.seconds = seconds

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return RunnerResult(self.seconds, None)

    @derived_object
    class InProcess(PyRunner):  # type: ignore[misc]
        def run(self, runner_inputs: Sequence[Any]) -> list[Any]:
            return [Done(_seconds(tvm, built[str(each.artifact_path)], arguments)) for each in runner_inputs]

    return InProcess()


def _seconds(tvm: Any, module: Any, arguments: Sequence[Any]) -> list[float]:
    timing = module.mod.time_evaluator("main", tvm.cpu(), number=1, repeat=_REPEATS)
    return [float(seconds) for seconds in timing(*arguments).results]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MetaSchedule's log."""
    logger = logging.getLogger("tvm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def search_apart(function: Any, target: Target, *, seconds: float) -> tuple[str, float] | None:
    """``search`` in a process of its own, which a candidate may crash; the form found as TVM's JSON."""
    tvm = import_tvm()
    with tempfile.TemporaryDirectory(prefix="assay-metaschedule-") as folder:
        source, found = Path(folder) / "function.json", Path(folder) / "found.json"
        source.write_text(tvm.ir.save_json(function))
        command = [sys.executable, "-m", "assay.compile.tune.metaschedule", target.name, str(source)]
        try:
            subprocess.run(
                [*command, str(found), str(seconds)],
                capture_output=True,
                timeout=seconds + _GRACE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        if not found.exists():
            return None
        form, gain = json.loads(found.read_text())
        return form, gain


def main(arguments: list[str]) -> int:
    """Worker: ``TARGET FUNCTION FOUND SECONDS``."""
    tvm = import_tvm()
    target, source, found, seconds = arguments
    function = tvm.ir.load_json(Path(source).read_text())
    result = search(function, find_target(target), seconds=float(seconds))
    if result is not None:
        Path(found).write_text(json.dumps([tvm.ir.save_json(result[0]), result[1]]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
