"""What the suites share: builds, measurements that several figures come from, and the form that asv takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypedDict, TypeVar

if TYPE_CHECKING:
    from assay.compile.build import BuildResult
    from assay.models.spec import ModelSpec
    from assay.results.record import Record

__all__ = [
    "RUN_ID",
    "Samples",
    "Suite",
    "built",
    "found",
    "missing_skips",
    "of_processes",
    "once",
    "skip",
    "tracked",
]

# Of records that go into no file.
RUN_ID = "asv"

_F = TypeVar("_F", bound=Callable[..., Any])


class Samples(TypedDict):
    """What asv makes a median and an interval of: one value a process."""

    samples: list[float]
    number: int


class Suite:
    """Base of the suites: what is not there on this machine skips, and says why."""

    # asv calls results of another version another benchmark: raise it where what is measured changes.
    version = "1"
    timeout = 1800
    params: ClassVar[Sequence[Sequence[object]]] = ()
    param_names: ClassVar[Sequence[str]] = ()

    def setup_cache(self) -> None:
        """Nothing to keep; it makes asv run all benchmarks in one folder, where ``once`` keeps files."""


def skip(reason: str) -> NoReturn:
    """Skip the benchmark: its result is no number, and ``asv run --show-stderr`` shows the reason."""
    from asv_runner.benchmarks.mark import SkipNotImplemented

    print(f"skipped: {reason}")
    raise SkipNotImplemented(reason)


@contextmanager
def missing_skips() -> Iterator[None]:
    """Skip the benchmark, with the reason, where the block finds that this machine lacks something."""
    from assay.errors import CpuFeatureError, DeviceError, EmulatorError, MissingDependencyError

    try:
        yield
    except (CpuFeatureError, DeviceError, EmulatorError, MissingDependencyError) as error:
        skip(str(error))


def found(model: str) -> ModelSpec:
    """The model of that name, or of a path from the root of the working tree."""
    from assay.models.registry import find_model

    path = Path(__file__).resolve().parents[2] / model
    return find_model(str(path) if path.exists() else model)


def built(model: str, target: str, scheme: str = "default", profile: str = "release") -> BuildResult:
    """The model, from the build cache where it has it. Skips where this machine cannot run the target."""
    from assay.compile.build import build_artifact
    from assay.runtime.levels import choose_level

    with missing_skips():
        result = build_artifact(
            found(model),
            target=target,
            scheme=None if scheme == "default" else scheme,
            profile=profile,
        )
        choose_level(result.manifest)
    return result


def once(figure: str, key: Sequence[object], measure: Callable[[], Sequence[Record]]) -> list[Record]:
    """What ``measure`` gives for ``key``, measured anew only when a ``figure`` asks for the second time.

    So several figures come of one measurement, and every round of asv is of processes of its own.
    """
    import msgspec

    from assay.results.record import Record

    name = "-".join(str(part).replace(os.sep, "_") for part in key)
    path = Path(f"measured-{name}.json")
    kept: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"figures": [figure]}
    if figure in kept["figures"]:
        kept = {"figures": [], "records": msgspec.to_builtins(list(measure()))}
    kept["figures"].append(figure)
    path.write_text(json.dumps(kept))
    return msgspec.convert(kept["records"], list[Record])


def of_processes(
    records: Sequence[Record], metric: str, *, change: Callable[[float], float] = float
) -> Samples:
    """Our figure of each process, through ``change``: the median of its samples. Raises ValueError."""
    from assay.results.statistics import round_medians

    for record in records:
        if record.metric == metric and record.engine == "assay":
            return Samples(samples=[change(each) for each in round_medians(record.rounds())], number=1)
    raise ValueError(f"{metric} was not measured")


def tracked(unit: str, *, rounds: int = 1) -> Callable[[_F], _F]:
    """Mark a figure with its unit; asv makes ``rounds`` of it, in which commits take turns."""

    def mark(function: _F) -> _F:
        function.__dict__.update(unit=unit, rounds=rounds)
        return function

    return mark
