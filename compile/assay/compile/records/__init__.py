"""Measured choices as data, one folder a target and one file a micro-architecture, and how they are read.

``records/TARGET/MICROARCHITECTURE.json``. A build for ``native``, or for a micro-architecture by name, takes
that of the micro-architecture; a build for a plain level takes none, so that its bytes depend on no CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from assay.compile.cache import installed_versions
from assay.compile.schedules.choices import SCHEDULE_VERSION, Choice, Tuning, Workload
from assay.errors import TuningRecordError
from assay.runtime.atomic import replace_file

__all__ = [
    "SCHEMA_VERSION",
    "FormRecord",
    "Found",
    "Origin",
    "Record",
    "RecordFile",
    "find_records",
    "package_folder",
    "read_records",
    "record_path",
    "write_records",
]

SCHEMA_VERSION = 1


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object in a record file: immutable, and strict about unknown fields."""


class Origin(Struct, frozen=True, kw_only=True):
    """Who measured: the CPU, when (UTC), with which versions."""

    cpu: str
    time: str
    versions: dict[str, str]


class Record(Struct, frozen=True, kw_only=True):
    """A choice for a workload that was measured to be faster than the analytic one.

    ``threads``: of the measurement. ``seconds`` and ``baseline_seconds`` are medians of the choice and of the
    analytic one, ``ratio`` the median of their pairs. ``schedule_version``: of the loops that were measured.
    """

    workload: str
    choice: dict[str, Any]
    threads: int
    seconds: float
    baseline_seconds: float
    ratio: float
    schedule_version: int = SCHEDULE_VERSION
    measured: Origin


class FormRecord(Struct, frozen=True, kw_only=True):
    """The scheduled form of a kernel that no schedule matches: ``form`` is TVM's JSON, ``key`` its form key.

    ``ratio``: how many times as fast it is as TVM's plain loops.
    """

    kernel: str
    key: str
    form: str
    ratio: float
    measured: Origin


class RecordFile(Struct, frozen=True, kw_only=True):
    """The records of one micro-architecture for one target, sorted by workload."""

    schema_version: int = SCHEMA_VERSION
    target: str
    microarchitecture: str
    records: tuple[Record, ...]
    forms: tuple[FormRecord, ...] = ()


class _Version(msgspec.Struct):
    schema_version: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """What records say for one build: the tuning, if any, and a word on what was ignored."""

    tuning: Tuning | None = None
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=())


def package_folder() -> Path:
    """The records that come with Assay."""
    return Path(__file__).parent


def record_path(folder: Path, target: str, microarchitecture: str) -> Path:
    """Where the records of a target and micro-architecture lie below ``folder``."""
    return folder / target / f"{microarchitecture}.json"


def find_records(target: str, microarchitecture: str | None, folders: Iterable[Path] | None = None) -> Found:
    """The choices for a target and micro-architecture; later folders win over earlier ones.

    Records of another micro-architecture or of older schedules are ignored with a word. Raises
    TuningRecordError for a file that is damaged.
    """
    if microarchitecture is None:
        return Found()
    choices: dict[str, Choice] = {}
    forms: dict[str, str] = {}
    notes: list[str] = []
    files: list[str] = []
    for folder in [package_folder()] if folders is None else folders:
        path = record_path(folder, target, microarchitecture)
        if not path.is_file():
            others = sorted(other.stem for other in (folder / target).glob("*.json"))
            if others:
                notes.append(
                    f"Tuning records for {target} of {', '.join(others)}, not {microarchitecture}: ignored."
                )
            continue
        file = read_records(path)
        if (file.target, file.microarchitecture) != (target, microarchitecture):
            notes.append(
                f"{path.name} holds tuning records of {file.microarchitecture} for {file.target}: ignored."
            )
            continue
        stale = sum(record.schedule_version != SCHEDULE_VERSION for record in file.records)
        if stale:
            notes.append(
                f"{stale} tuning records in {path.name} are of other schedules than this version's: ignored."
            )
        files.append(str(path))
        for record in file.records:
            if record.schedule_version == SCHEDULE_VERSION:
                choices[record.workload] = Choice.from_dict(record.choice)
        # Forms of another TVM may not load; the loops that they come from would have another key anyway.
        tvm = installed_versions(("apache-tvm",))
        forms |= {each.key: each.form for each in file.forms if tvm.items() <= each.measured.versions.items()}
    tuning = Tuning(choices=choices, forms=forms) if choices or forms else None
    return Found(tuning=tuning, notes=tuple(notes), files=tuple(files))


def read_records(path: Path) -> RecordFile:
    """A record file. Raises TuningRecordError for one that is damaged, truncated or too new."""
    try:
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise TuningRecordError(
                f"The tuning records in {path} have schema {version}, newer than {SCHEMA_VERSION}.",
                hint="Upgrade Assay, or measure them again with this version.",
            )
        file = msgspec.json.decode(data, type=RecordFile)
        for record in file.records:
            Workload.parse(record.workload)
            Choice.from_dict(record.choice)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise TuningRecordError(
            f"The tuning records in {path} are damaged or truncated: {error}.",
            hint="Measure them again with `assay tune`, or remove the file.",
        ) from error
    return file


def write_records(path: Path, file: RecordFile) -> None:
    """Write records, sorted by workload, atomically. Raises StorageError."""
    ordered = tuple(sorted(file.records, key=lambda record: (record.workload, record.threads)))
    content = msgspec.json.encode(msgspec.structs.replace(file, records=ordered), order="sorted")
    with replace_file(path) as temporary:
        temporary.write_bytes(msgspec.json.format(content, indent=2) + b"\n")
