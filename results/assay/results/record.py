"""Records of measurements: their types, and the files that hold those of one run.

A file is ``{"schema_version": 3, "records": [...]}``, and every record stands on its own: it names its model,
engine, metric and unit, and carries its raw samples, the machine, the versions and the commit. Older versions
of the schema are read too: 1 lacks the commit's time and the branch, 2 the method and the metrics of quality.

The schema is checked in as ``docs/schema/records.schema.json``; write it anew with
``python -m assay.results.record > docs/schema/records.schema.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from assay.errors import RecordError, StorageError
from assay.schema import published_schema

__all__ = [
    "HIGHER_IS_BETTER",
    "MAY_BE_ZERO",
    "OF_ARTIFACTS",
    "SCHEMA_VERSION",
    "UNITS",
    "Machine",
    "Method",
    "Metric",
    "Record",
    "Unit",
    "encode_records",
    "new_run_id",
    "read_records",
    "records_schema",
    "utc_now",
    "write_records",
]

SCHEMA_VERSION = 3

Metric: TypeAlias = Literal[
    "latency",
    "load_time",
    "first_run_time",
    "peak_memory",
    "artifact_size",
    "compile_time",
    "ttft",
    "prefill",
    "decode",
    "instructions",
    "kernels",
    "workspace",
    "weights",
    "error",
    "absolute_error",
    "relative_error",
    "cosine_distance",
    "perplexity",
]
Unit: TypeAlias = Literal["s", "bytes", "tokens/s", "instructions", "kernels", "1"]
Method: TypeAlias = Literal["bench", "gate", "asv"]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]

# What each metric is measured in: base units, so that no reader has to convert. "1" has no dimension.
UNITS: dict[Metric, Unit] = {
    "latency": "s",
    "load_time": "s",
    "first_run_time": "s",
    "peak_memory": "bytes",
    "artifact_size": "bytes",
    "compile_time": "s",
    "ttft": "s",
    "prefill": "tokens/s",
    "decode": "tokens/s",
    "instructions": "instructions",
    "kernels": "kernels",
    "workspace": "bytes",
    "weights": "bytes",
    "error": "1",
    "absolute_error": "1",
    "relative_error": "1",
    "cosine_distance": "1",
    "perplexity": "1",
}

HIGHER_IS_BETTER = frozenset[Metric]({"prefill", "decode"})
"""The metrics of which more is better; of all others, less is."""

OF_ARTIFACTS = frozenset[Metric](
    {
        "artifact_size",
        "kernels",
        "workspace",
        "weights",
        "error",
        "absolute_error",
        "relative_error",
        "cosine_distance",
        "perplexity",
    }
)
"""The metrics that are read from an artifact, or computed by it: the same whoever does it."""

MAY_BE_ZERO = frozenset[Metric]({"workspace", "error", "absolute_error", "relative_error", "cosine_distance"})
"""The metrics of which none is possible; all others are more than nothing."""


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object in a results file: immutable, and strict about unknown fields."""


class Machine(Struct, frozen=True, kw_only=True):
    """Where a measurement was made.

    ``cpus``: logical CPUs that the process may use. ``governor`` and ``virtualisation`` are None where the
    system does not tell.
    """

    cpu: str
    architecture: str
    features: tuple[str, ...]
    cores: int
    cpus: int
    memory_bytes: int
    system: str
    governor: str | None
    virtualisation: str | None

    def identity(self) -> str:
        """Eight hexadecimal digits of what makes figures comparable: all but the version of the system.

        Memory counts in whole GiB: a kernel's update moves what it reserves by some MiB.
        """
        parts = (
            self.cpu,
            self.architecture,
            sorted(self.features),
            self.cores,
            self.cpus,
            self.memory_bytes >> 30,
            self.governor,
            self.virtualisation,
        )
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:8]


class Record(Struct, frozen=True, kw_only=True):
    """One metric of one engine on one model.

    ``target``, ``scheme``, ``profile`` and ``artifact`` (the digest of its manifest) are those of the
    artifact; the records of its peers carry them too, because they say beside what the peer was measured.
    ``samples`` holds every sample in the order in which it was taken, round after round, and
    ``samples_per_round`` how many each round (a fresh process) gave. A sample is the mean over
    ``calls_per_sample`` calls. ``value`` is the median of the rounds' medians, ``interval`` its 95%
    interval (None with fewer than three rounds). ``value``, ``samples`` and ``interval`` are in ``unit``.
    ``sizes`` gives the symbolic dimensions. ``note`` says what exactly the engine ran. ``time`` is when it
    was measured, and ``commit_time`` that of the committer, both ISO 8601 in UTC; ``commit``,
    ``commit_time``, ``dirty`` (tracked files differ from the commit) and ``branch`` are None where nothing
    told them. ``method`` is the command that measured: each has a way of its own, so that figures of
    different methods do not compare, but for metrics ``OF_ARTIFACTS``. Errors are against the engine that
    ``note`` names, the worst of any output: ``error`` as a part of the tolerance, ``cosine_distance`` as 1
    minus the cosine similarity. ``weights`` are unknown to asv.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: Name
    time: Name
    model: Name
    weights: Literal["trained", "random", "unknown"]
    sizes: dict[str, int]
    target: Name
    scheme: Name
    profile: Name
    artifact: Name
    engine: Name
    threads: Count
    metric: Metric
    unit: Unit
    value: float
    interval: tuple[float, float] | None
    samples: Annotated[tuple[float, ...], msgspec.Meta(min_length=1)]
    samples_per_round: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)]
    calls_per_sample: Count = 1
    note: str
    machine: Machine
    versions: dict[str, str]
    commit: str | None
    dirty: bool | None
    commit_time: str | None = None
    branch: str | None = None
    method: Method = "bench"

    def rounds(self) -> list[tuple[float, ...]]:
        """The samples of each round."""
        rounds, start = [], 0
        for count in self.samples_per_round:
            rounds.append(self.samples[start : start + count])
            start += count
        return rounds


class _File(Struct, frozen=True, kw_only=True):
    schema_version: int = SCHEMA_VERSION
    records: tuple[Record, ...]


class _Version(msgspec.Struct):
    schema_version: int


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_run_id() -> str:
    """An identifier of a run that sorts by time and serves as a file name."""
    return f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(3)}"


def encode_records(records: Sequence[Record]) -> bytes:
    """JSON list of ``records``: UTF-8, indented, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(list(records)), indent=2) + b"\n"


def write_records(folder: Path, records: Sequence[Record]) -> Path:
    """Write the records of one run as ``<folder>/<run_id>.json``, atomically, and give that path.

    Raises ValueError unless all records are of one run, StorageError when the file cannot be written.
    """
    run_ids = {record.run_id for record in records}
    if len(run_ids) != 1:
        raise ValueError(f"a file holds the records of one run, not of {len(run_ids)}")
    path = folder / f"{run_ids.pop()}.json"
    content = msgspec.json.format(msgspec.json.encode(_File(records=tuple(records))), indent=2) + b"\n"
    temporary = folder / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"The results cannot be written to {path}: {error.strerror or error}.",
            hint="Free some room, or choose another folder with --results.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def read_records(path: Path) -> list[Record]:
    """The records in the file at ``path``.

    Raises RecordError, naming the file and the field, when it cannot be read, is damaged or of a newer
    schema.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"The results file {path} cannot be read: {error.strerror or error}.") from error
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise RecordError(
                f"{path} has results schema {version}; this Assay reads up to {SCHEMA_VERSION}.",
                hint="Upgrade Assay.",
            )
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordError(f"The results file {path} is damaged: {error}.") from error
    for index, record in enumerate(file.records):
        problem = _problem(record)
        if problem:
            raise RecordError(f"The results file {path} is damaged: record {index} {problem}.")
    return [
        record
        if record.schema_version == SCHEMA_VERSION
        else msgspec.structs.replace(record, schema_version=SCHEMA_VERSION)
        for record in file.records
    ]


def _problem(record: Record) -> str | None:
    """What the types cannot say: whether the fields of a record fit together."""
    if record.unit != UNITS[record.metric]:
        return f"gives {record.metric} in {record.unit}, not in {UNITS[record.metric]}"
    if sum(record.samples_per_round) != len(record.samples):
        return f"has {len(record.samples)} samples, but rounds of {sum(record.samples_per_round)}"
    return None


def records_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a file of records, as this version writes it."""
    return published_schema(_File, "Assay records of measurements", SCHEMA_VERSION)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(records_schema(), indent=2, sort_keys=True) + "\n")
