"""Time one candidate beside its baseline on a device: ``python -m assay.compile.tune.kernel_round``.

It reads a ``Round`` on stdin and writes an ``Answer`` to ``answer.json``. What it times are libraries that
another machine compiled; here NumPy, TVM's ffi and a libtvm_runtime suffice.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from assay.compile.pgo.compare import interleaved
from assay.compile.tune.checked_kernel import WrongError, checked_runner
from assay.errors import AssayError, MissingDependencyError

__all__ = ["ANSWER", "RUNTIME", "Answer", "Round", "main"]

ANSWER = "answer.json"
RUNTIME = "libtvm_runtime.so"


class Round(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Libraries of the baseline and the candidate, each with its packed operand; all are files.

    ``seconds``: for about how long.
    """

    baseline: str
    candidate: str
    baseline_b: str
    candidate_b: str
    a: str
    expected: str
    threads: Annotated[int, msgspec.Meta(ge=1)]
    seconds: float


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``status``: ``ok`` with pairs of seconds (baseline, candidate), or ``wrong``."""

    status: str
    pairs: list[tuple[float, float]] = []
    error: str | None = None


def main() -> int:
    """Do the round on stdin; 0, or 1 with one line on stderr."""
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Round)
    try:
        _load_runtime()
        answer = _timed(asked)
    except WrongError as error:
        answer = Answer(status="wrong", error=str(error))
    except AssayError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    Path(ANSWER).write_bytes(msgspec.json.encode(answer))
    return 0


def _timed(asked: Round) -> Answer:
    from assay.runtime.drivers.threads import call_with_threads

    a, expected = _array(asked.a), _array(asked.expected)
    runs = [
        checked_runner(_kernel(library), a, _array(b), expected, asked.threads)
        for library, b in ((asked.baseline, asked.baseline_b), (asked.candidate, asked.candidate_b))
    ]
    clock = time.thread_time if asked.threads == 1 else time.perf_counter
    pairs = call_with_threads(asked.threads, interleaved, *runs, clock, asked.seconds)
    return Answer(status="ok", pairs=pairs)


def _array(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = np.load(name, allow_pickle=False)
    return array


def _kernel(library: str) -> Callable[..., None]:
    from assay.runtime.drivers.ffi import import_tvm_ffi

    entry: Callable[..., None] = import_tvm_ffi().load_module(str(Path(library).absolute()))["kernel"]
    return entry


def _load_runtime() -> None:
    """Load the task's libtvm_runtime, or that of the apache-tvm here. Raises MissingDependencyError."""
    from assay.runtime.drivers.ffi import import_tvm_ffi

    import_tvm_ffi()
    library = Path(RUNTIME).absolute()
    if not library.is_file():
        package = importlib.util.find_spec("tvm")
        if package is None or package.origin is None:
            raise MissingDependencyError("apache-tvm", "compile")
        library = Path(package.origin).parent / "lib" / RUNTIME
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


if __name__ == "__main__":
    sys.exit(main())
