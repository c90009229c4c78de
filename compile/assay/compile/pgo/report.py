"""What a profile-guided build did and why: a file of the artifact, ``pgo/report.json``."""

from __future__ import annotations

from typing import Any

import msgspec

from assay.compile.pgo.compare import Comparison
from assay.errors import ArtifactError

__all__ = ["PROFILE_FILE", "REPORT_FILE", "Measured", "Report", "decode_report", "encode_report", "measured"]

REPORT_FILE = "pgo/report.json"
PROFILE_FILE = "pgo/profile.json"
SCHEMA_VERSION = 1


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object in a report: immutable, and strict about unknown fields."""


class Measured(Struct, frozen=True, kw_only=True):
    """Beside release at one size: ``ratio`` is release's time over the artifact's, with a 95% interval."""

    sizes: dict[str, int]
    threads: int
    ratio: float
    low: float
    high: float
    release_seconds: float
    seconds: float


class Report(Struct, frozen=True, kw_only=True):
    """``kept``: what of the rebuild is in the artifact; ``dropped``: what was no faster, in words.

    ``choices`` by workload, ``serial_kernels`` by library.
    """

    schema_version: int = SCHEMA_VERSION
    cpu: str
    notes: tuple[str, ...]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    choices: dict[str, dict[str, Any]]
    serial_kernels: dict[str, tuple[str, ...]]
    beside_release: tuple[Measured, ...]


def measured(comparison: Comparison) -> Measured:
    """A comparison with release in the form of the report."""
    return Measured(
        sizes=dict(comparison.sizes),
        threads=comparison.threads,
        ratio=round(comparison.ratio, 4),
        low=round(comparison.low, 4),
        high=round(comparison.high, 4),
        release_seconds=comparison.first,
        seconds=comparison.second,
    )


def encode_report(report: Report) -> bytes:
    """JSON of a report."""
    return msgspec.json.format(msgspec.json.encode(report, order="sorted"), indent=2) + b"\n"


def decode_report(data: bytes) -> Report:
    """A report from its JSON. Raises ArtifactError for a damaged one."""
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{REPORT_FILE} is damaged: {error}") from None
