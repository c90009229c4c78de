"""What asv keeps of its runs, as records.

asv's results folder has a folder for each machine, and in it a file for each commit and environment
(https://asv.readthedocs.io/en/stable/dev.html, version 2 of its files). They know less than records do:
target and scheme are as the suites' settings name them, such as ``native``, and nothing tells the build. So a
record of asv is one of a series of its own; see ``Record.method``.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from assay.errors import RecordError
from assay.results.record import UNITS, Machine, Metric, Record
from assay.results.statistics import median, median_interval

__all__ = ["asv_files", "is_asv_file", "read_asv_results"]

_MACHINE = "machine.json"
_BENCHMARKS = "benchmarks.json"
_MODEL = ("model", "target", "scheme", "profile")
# More combinations of parameters than this are no suite of ours.
_MOST_COMBINATIONS = 100_000
_TEXT = re.compile(r"'([^'\\]{1,500})'")
_NUMBER = re.compile(r"[0-9]{1,9}")

Change = Callable[[float, Mapping[str, str]], float]


def _same(value: float, _: Mapping[str, str]) -> float:
    return value


def _inverse(value: float, _: Mapping[str, str]) -> float:
    """Seconds a token as tokens a second."""
    return 1 / value if value else math.inf


def _of_all_items(value: float, given: Mapping[str, str]) -> float:
    """Seconds an item as seconds of a call."""
    return value * int(given["batch"])


@dataclass(frozen=True, kw_only=True)
class _Benchmark:
    """A benchmark of the suites: its parameters in order, and its figure as that of a metric."""

    metric: Metric
    parameters: tuple[str, ...]
    change: Change = _same


# One a line; what is not here, such as ratios to peers, is no metric of records.
_KNOWN: dict[str, _Benchmark] = {
    "models.Models.track_latency": _Benchmark(metric="latency", parameters=(*_MODEL, "threads")),
    "models.Batches.track_time_per_item": _Benchmark(
        metric="latency", parameters=(*_MODEL, "threads", "batch"), change=_of_all_items
    ),
    "kernels.Kernels.track_latency": _Benchmark(metric="latency", parameters=("model", "target", "threads")),
    "language.LanguageModels.track_time_to_first_token": _Benchmark(
        metric="ttft", parameters=("model", "target", "scheme", "threads")
    ),
    "language.LanguageModels.track_prefill_time_per_token": _Benchmark(
        metric="prefill", parameters=("model", "target", "scheme", "threads"), change=_inverse
    ),
    "language.LanguageModels.track_decode_time_per_token": _Benchmark(
        metric="decode", parameters=("model", "target", "scheme", "threads"), change=_inverse
    ),
    "artifact.Artifacts.track_load_time": _Benchmark(
        metric="load_time", parameters=("model", "target", "scheme", "threads")
    ),
    "artifact.Artifacts.track_peak_memory": _Benchmark(
        metric="peak_memory", parameters=("model", "target", "scheme", "threads")
    ),
    "artifact.Sizes.track_size": _Benchmark(metric="artifact_size", parameters=_MODEL),
    "artifact.Sizes.track_workspace": _Benchmark(metric="workspace", parameters=_MODEL),
    "build.Builds.track_compile_time": _Benchmark(metric="compile_time", parameters=_MODEL),
    "quality.Errors.track_error": _Benchmark(metric="absolute_error", parameters=_MODEL),
    "quality.Errors.track_cosine_distance": _Benchmark(metric="cosine_distance", parameters=_MODEL),
    "quality.Perplexity.track_perplexity": _Benchmark(
        metric="perplexity", parameters=("model", "target", "scheme")
    ),
}


class _Machine(msgspec.Struct, frozen=True, kw_only=True):
    """asv's description of a machine; all of it texts."""

    arch: str
    cpu: str
    os: str
    num_cpu: str = ""
    ram: str = ""


class _Results(msgspec.Struct, frozen=True, kw_only=True):
    """A file of results, as far as it is read. ``date`` is the commit's, in milliseconds since 1970."""

    version: Literal[2]
    commit_hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{7,64}$")]
    env_name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    date: int
    python: str
    result_columns: list[str]
    results: dict[str, list[Any] | None]


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark: a figure for each combination of ``params``, None or NaN where there is none."""

    result: list[float | None] | None = None
    params: list[list[str]] = []
    started_at: int | None = None
    samples: list[list[float] | None] | None = None


def is_asv_file(path: Path) -> bool:
    """Whether ``path`` lies where asv puts a file of results."""
    return path.name not in (_MACHINE, _BENCHMARKS) and (path.parent / _MACHINE).is_file()


def asv_files(folder: Path) -> list[Path] | None:
    """The files of results below ``folder``, of all machines or of one; None if it is no folder of asv's."""
    if (folder / _BENCHMARKS).is_file():
        found = sorted(folder.glob("*/*.json"))
    elif (folder / _MACHINE).is_file():
        found = sorted(folder.glob("*.json"))
    else:
        return None
    return [path for path in found if is_asv_file(path)]


def read_asv_results(path: Path) -> list[Record]:
    """The records of one of asv's files; of figures that it has not, and of others' benchmarks, none.

    Raises RecordError, naming the file, where it cannot be read or is not as asv writes it.
    """
    machine = _machine(_decoded(path.with_name(_MACHINE), _Machine))
    file = _decoded(path, _Results)
    records: list[Record] = []
    for name, values in file.results.items():
        known = _KNOWN.get(name)
        if known is None or values is None:
            continue
        try:
            row = msgspec.convert(dict(zip(file.result_columns, values, strict=False)), _Row)
            records += _records(file, machine, known, row)
        except (ValueError, OverflowError, OSError) as error:
            raise RecordError(f"{path} is not as asv writes it: {name}: {error}.") from error
    return records


def _decoded(path: Path, kind: Any) -> Any:
    try:
        # NaN and Infinity, which asv writes, are none of JSON's.
        return msgspec.convert(json.loads(path.read_bytes()), kind)
    except OSError as error:
        raise RecordError(f"The results file {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not as asv writes it: {error}.") from error


def _machine(found: _Machine) -> Machine:
    cpus = int(found.num_cpu) if _NUMBER.fullmatch(found.num_cpu) else 0
    return Machine(
        cpu=found.cpu,
        architecture=found.arch,
        features=(),
        cores=cpus,
        cpus=cpus,
        memory_bytes=int(found.ram) if re.fullmatch(r"[0-9]{1,18}", found.ram) else 0,
        system=found.os,
        governor=None,
        virtualisation=None,
    )


def _records(file: _Results, machine: Machine, known: _Benchmark, row: _Row) -> Iterator[Record]:
    if row.result is None:
        return
    if len(row.params) != len(known.parameters):
        raise ValueError(f"it has {len(row.params)} parameters, not {len(known.parameters)}")
    count = math.prod(len(values) for values in row.params)
    if count > _MOST_COMBINATIONS or count != len(row.result):
        raise ValueError(f"it has {len(row.result)} figures for {count} combinations of parameters")
    names = [[_text(value) for value in values] for values in row.params]
    for place, values in enumerate(itertools.product(*names)):
        figure = row.result[place]
        if figure is None or math.isnan(figure):
            continue  # skipped, or failed
        given = dict(zip(known.parameters, values, strict=True))
        kept = row.samples[place] if row.samples is not None and place < len(row.samples) else None
        yield _record(file, machine, known, given, row.started_at, kept or [figure])


def _record(
    file: _Results,
    machine: Machine,
    known: _Benchmark,
    given: Mapping[str, str],
    started: int | None,
    figures: Sequence[float],
) -> Record:
    samples = [known.change(figure, given) for figure in figures]
    return Record(
        run_id=f"asv-{file.commit_hash[:16]}-{file.env_name}",
        time=_time(file.date if started is None else started),
        model=given["model"],
        weights="unknown",
        sizes={"batch": int(given["batch"])} if "batch" in given else {},
        target=given["target"],
        scheme=given.get("scheme", "default"),
        profile=given.get("profile", "release"),
        artifact="unknown",
        engine="assay",
        threads=max(1, int(given.get("threads", "1"))),
        metric=known.metric,
        unit=UNITS[known.metric],
        value=median(samples),
        interval=median_interval(samples) if _are_numbers(samples) else None,
        # Each is the figure of a process.
        samples=tuple(samples),
        samples_per_round=(1,) * len(samples),
        note=f"asv, environment {file.env_name}",
        machine=machine,
        versions={"python": file.python},
        commit=file.commit_hash,
        # An environment that is there already may hold any code.
        dirty=None if file.env_name.startswith("existing") else False,
        commit_time=_time(file.date),
        method="asv",
    )


def _are_numbers(values: Iterable[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def _text(value: str) -> str:
    """What a parameter is, from asv's text of it: a name in quotes, or a number. Raises ValueError."""
    found = _TEXT.fullmatch(value)
    if found is not None:
        return found[1]
    if _NUMBER.fullmatch(value):
        return value
    raise ValueError(f"{value[:50]!r} is no parameter")


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
