"""Searches: tuning records, as ``assay tune`` makes them."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from assay.ci.farm.kinds.kind import JobKind, NonsenseError, Result
from assay.errors import TuningRecordError

if TYPE_CHECKING:
    from assay.ci.farm.jobs import Job
    from assay.compile.records import RecordFile

__all__ = ["KIND"]

_FOUND = "tuning.json"
_NOTHING = "nothing"


def _run(job: Job, folder: Path, cache: Path | None) -> None:
    from assay.compile.tune.session import tune_model
    from assay.models.registry import find_model

    tuned = tune_model(
        find_model(job.model), folder / "records", target=job.target, budget=job.options["budget"],
        strategy=job.options["strategy"], threads=job.threads, cache=cache,
    )  # fmt: skip
    if tuned.records is None:
        (folder / _NOTHING).write_text(f"{tuned.result.tried} candidates, none faster\n")
    else:
        tuned.records.rename(folder / _FOUND)


def _check(job: Job, result: Result, _needed: Result, _seconds: float) -> None:
    if set(result) == {_NOTHING}:
        return
    file = _read(result)
    if file.target != job.target:
        raise NonsenseError(f"it is for {file.target}, where {job.target} was asked for")
    if not (file.records or file.forms):
        raise NonsenseError("it has no records")
    for record in file.records:
        times = (record.seconds, record.baseline_seconds, record.ratio)
        if not all(math.isfinite(each) and each > 0 for each in times) or record.ratio <= 1:
            raise NonsenseError(f"the times of {record.workload} are {times}")
        if record.threads != job.threads:
            raise NonsenseError(f"{record.workload} was measured with {record.threads} threads")


def _read(result: Result) -> RecordFile:
    from assay.compile.records import read_records

    with tempfile.TemporaryDirectory(prefix="assay-farm-") as name:
        path = Path(name) / _FOUND
        path.write_bytes(result.get(_FOUND, b""))
        try:
            return read_records(path)
        except TuningRecordError as error:
            raise NonsenseError(f"its tuning records are none: {error.message}") from error


def _keep(job: Job, result: Result, folder: Path) -> None:
    """Add to what other models found, in place of earlier records of the same workloads."""
    import msgspec

    from assay.compile.records import read_records, record_path, write_records

    if set(result) == {_NOTHING}:
        return
    file = _read(result)
    path = record_path(folder / "records", file.target, file.microarchitecture)
    if path.is_file():
        earlier = read_records(path)
        records = {(record.workload, record.threads): record for record in (*earlier.records, *file.records)}
        forms = {form.key: form for form in (*earlier.forms, *file.forms)}
        file = msgspec.structs.replace(file, records=tuple(records.values()), forms=tuple(forms.values()))
    write_records(path, file)


KIND = JobKind(name="tune", times=True, needs=None, run=_run, check=_check, keep=_keep)
