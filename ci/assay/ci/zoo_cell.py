"""One cell of the table of the zoo: one model, built for one target and compared with ONNX Runtime.

A process of its own: a wrong kernel, a driver or LLVM may end it. Steps go to stderr as they begin, so that
whoever started it knows where it ended.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from assay.ci.json_file import write_json
from assay.errors import AssayError, CapacityError, MissingDependencyError, UnsupportedOperatorError

if TYPE_CHECKING:
    from assay.compile.decoders.interface import CacheDType
    from assay.runtime.manifest import Level

__all__ = ["STEP", "Cell", "Outcome", "main", "make_cell"]

STEP = "step: "
"""What a line of stderr begins with that names the step which begins."""


class Outcome(StrEnum):
    """What came of a model for a target.

    ``AGREES``: it ran, and every output is within the tolerance. ``COMPILED``: nothing here runs it.
    ``REFUSED``: an operator, or a size, that the target does not have. ``FAILED``: wrong outputs, or an error
    that should not be. ``CRASHED``: the process ended by a signal. ``LATE``: it took longer than it may.
    """

    AGREES = "agrees"
    COMPILED = "compiled"
    REFUSED = "refused"
    FAILED = "failed"
    CRASHED = "crashed"
    LATE = "late"


class Cell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one model for one target.

    ``reason``: why it does not agree. ``error``: the largest absolute one, which ``tolerance`` allows for
    (with a relative one beside it). ``row_error``: of logits, as a part of their standard deviation.
    ``cases``: how many sets of inputs were compared. ``where``: what executed it. ``seconds``: of each step;
    ``total`` of all. ``bytes``: of the artifact. ``commit`` and ``day``: of the code, and when it ran.
    """

    model: str
    target: str
    outcome: Outcome
    reason: str | None = None
    error: float | None = None
    tolerance: float | None = None
    row_error: float | None = None
    scheme: str | None = None
    cases: int = 0
    where: str | None = None
    seconds: dict[str, float] = {}
    total: float = 0.0
    bytes: int | None = None
    commit: str | None = None
    day: str | None = None


class _Steps:
    """Tells stderr which step begins, and keeps the seconds of each; a step within another counts twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """As ``Progress`` says."""
        print(STEP + name, file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 2)


def make_cell(
    model: str, target: str, *, scheme: str | None, cache_dtype: CacheDType, cache: Path | None
) -> Cell:
    """Build ``model`` for ``target``, which verifies it; errors are in the cell. The artifact is not kept.

    Raises MissingDependencyError where the extras that a build takes are not installed.
    """
    from assay.compile.build import build_artifact
    from assay.compile.decoders.interface import DecoderOptions
    from assay.models.registry import find_model

    steps, start = _Steps(), time.perf_counter()
    try:
        result = build_artifact(
            find_model(model),
            target=target,
            scheme=scheme,
            cache=cache,
            decoder=DecoderOptions(cache_dtype=cache_dtype),
            progress=steps,
        )
    except MissingDependencyError:
        raise
    except AssayError as error:
        refused = isinstance(error, UnsupportedOperatorError | CapacityError)
        return Cell(
            model=model,
            target=target,
            outcome=Outcome.REFUSED if refused else Outcome.FAILED,
            reason=error.message,
            scheme=scheme,
            seconds=steps.seconds,
            total=round(time.perf_counter() - start, 1),
        )
    (level,) = result.manifest.levels
    cell = _verified(model, target, level, steps.seconds, round(time.perf_counter() - start, 1))
    nbytes = sum(file.bytes for file in result.manifest.files.values())
    if not result.cached:
        shutil.rmtree(result.path, ignore_errors=True)
    return msgspec.structs.replace(cell, bytes=nbytes, scheme=scheme)


def _verified(model: str, target: str, level: Level, seconds: dict[str, float], total: float) -> Cell:
    found = level.verification.cases
    executed = level.executed.value != "never"
    rows = [case.row_error for case in found if case.row_error is not None]
    worst = max(found, key=lambda case: case.max_absolute_error, default=None)
    return Cell(
        model=model,
        target=target,
        outcome=Outcome.AGREES if executed else Outcome.COMPILED,
        reason=None if executed else level.verification.note,
        error=None if worst is None else worst.max_absolute_error,
        tolerance=None if worst is None else worst.absolute_tolerance,
        row_error=max(rows, default=None),
        cases=len({tuple(sorted(case.sizes.items())) for case in found}),
        where=level.verification.note if executed else None,
        seconds=seconds,
        total=total,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: write the cell to a file; 0 where it could be written."""
    parser = argparse.ArgumentParser(prog="python -m assay.ci.zoo_cell", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("target")
    parser.add_argument("output", type=Path)
    parser.add_argument("--scheme")
    parser.add_argument("--cache-dtype", default="float32", choices=("float16", "float32", "int8"))
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args(arguments)
    try:
        cell = make_cell(
            options.model,
            options.target,
            scheme=options.scheme,
            cache_dtype=options.cache_dtype,
            cache=options.cache,
        )
        write_json(options.output, cell)
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
