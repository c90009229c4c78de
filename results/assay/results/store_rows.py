"""Between records and the rows of a store, and which records mean nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any

import msgspec

from assay.results.record import MAY_BE_ZERO, Record
from assay.results.series import Point, SeriesKey, method_of, parse_time

__all__ = [
    "columns_of_version_2",
    "content_key",
    "point_of_row",
    "row_of_record",
    "series_key_of_row",
    "unusable",
]

# Files written by hand or by other languages may have lost the last digits.
_ROUNDING = 1e-6
_LARGEST_INTEGER = 2**31 - 1
_KEYED_VERSION = 2


def unusable(record: Record) -> str | None:
    """Why a well-formed record means nothing, as a phrase; None where it means something."""
    for name in ("time", "commit_time"):
        text = getattr(record, name)
        try:
            _seconds(text)
        except (ValueError, OverflowError):
            return f"its {name} {text!r} is not a time of ISO 8601"
    numbers = (record.value, *record.samples, *(record.interval or ()))
    bad = next((number for number in numbers if not math.isfinite(number)), None)
    if bad is not None:
        return f"it has the value {bad}"
    bad = next((number for number in numbers if number <= 0), None)
    if bad is not None and (bad < 0 or record.metric not in MAY_BE_ZERO):
        return f"it has the value {bad:g} {record.unit}, and {record.metric} is more than nothing"
    expected = median(median(samples) for samples in record.rounds())
    if not math.isclose(record.value, expected, rel_tol=_ROUNDING):
        return f"its value {record.value:g} is not that of its samples, {expected:g}: it was edited"
    if record.interval is not None and record.interval[0] > record.interval[1]:
        return "its interval ends before it begins"
    if max((record.threads, *record.sizes.values())) > _LARGEST_INTEGER:
        return "it has a number of threads, or a size, that is out of range"
    if b"\\u0000" in msgspec.json.encode(record):
        return "it has a text with a null character"
    return None


def row_of_record(record: Record) -> dict[str, Any]:
    """The row of a record that ``unusable`` has passed."""
    commit_time = _seconds(record.commit_time)
    time = _seconds(record.time)
    return {
        "key": content_key(record),
        "run_id": record.run_id,
        "model": record.model,
        "sizes": msgspec.json.encode(record.sizes, order="deterministic").decode(),
        "target": record.target,
        "scheme": record.scheme,
        "profile": record.profile,
        "engine": record.engine,
        "threads": record.threads,
        "metric": record.metric,
        "unit": record.unit,
        "machine": record.machine.identity(),
        "value": record.value,
        "low": record.interval[0] if record.interval else None,
        "high": record.interval[1] if record.interval else None,
        "rounds": len(record.samples_per_round),
        "artifact": record.artifact,
        "commit": record.commit,
        "branch": record.branch,
        "dirty": record.dirty,
        "time": time,
        "commit_time": commit_time,
        "at": time if commit_time is None else commit_time,
        "body": msgspec.json.encode(record, order="deterministic").decode(),
    } | columns_of_version_2(record)


def columns_of_version_2(record: Record) -> dict[str, Any]:
    """The columns that the first version of the tables lacks."""
    medians = [median(samples) for samples in record.rounds()]
    return {"method": method_of(record), "medians": msgspec.json.encode(medians).decode()}


def content_key(record: Record) -> str:
    """The SHA-256 of what a record says, in hexadecimal: the same by whatever schema it was written.

    It is that of its JSON in the second version of the schema, where that can say it all.
    """
    content = msgspec.to_builtins(record, order="deterministic")
    if record.method == "bench":
        content["schema_version"] = _KEYED_VERSION
        del content["method"]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def series_key_of_row(row: Mapping[Any, Any]) -> SeriesKey:
    """The series that a row of the store belongs to."""
    return SeriesKey(
        model=row["model"],
        sizes=tuple(sorted(msgspec.json.decode(row["sizes"], type=dict[str, int]).items())),
        target=row["target"],
        scheme=row["scheme"],
        profile=row["profile"],
        engine=row["engine"],
        threads=row["threads"],
        metric=row["metric"],
        machine=row["machine"],
        method=row["method"],
    )


def point_of_row(row: Mapping[Any, Any]) -> Point:
    """A row of the store as a point of its series."""
    return Point(
        commit=row["commit"],
        commit_time=None if row["commit_time"] is None else datetime.fromtimestamp(row["commit_time"], UTC),
        branch=row["branch"],
        dirty=row["dirty"],
        time=datetime.fromtimestamp(row["time"], UTC),
        value=row["value"],
        interval=None if row["low"] is None or row["high"] is None else (row["low"], row["high"]),
        rounds=row["rounds"],
        run_id=row["run_id"],
        artifact=row["artifact"],
        key=row["key"],
        medians=tuple(msgspec.json.decode(row["medians"], type=list[float])),
    )


def _seconds(text: str | None) -> int | None:
    """A time of ISO 8601 as seconds since 1970. Raises ValueError."""
    return None if text is None else int(parse_time(text).timestamp())
