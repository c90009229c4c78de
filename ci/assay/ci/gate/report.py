"""What a gate run found: its types, and the JSON Schema generated from them.

The schema is checked in as ``docs/schema/gate.schema.json``; write it anew with
``python -m assay.ci.gate.report > docs/schema/gate.schema.json``.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from assay.ci.gate.decision import Verdict
from assay.errors import InconclusiveError, NothingMeasuredError, RegressionError
from assay.results.record import Machine
from assay.schema import published_schema

__all__ = [
    "SCHEMA_VERSION",
    "BuildInfo",
    "Finding",
    "GateReport",
    "GateSettings",
    "Phase",
    "Row",
    "SideInfo",
    "Status",
    "gate_schema",
    "status_of",
]

SCHEMA_VERSION = 2
Phase = Literal["prefill", "decode"]
Name = Annotated[str, msgspec.Meta(min_length=1)]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object of the report: immutable, and strict about unknown fields."""


class Status(StrEnum):
    """What a gate run ends with."""

    PASSED = "passed"
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    NOTHING_MEASURED = "nothing measured"

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return {
            Status.PASSED: 0,
            Status.REGRESSION: RegressionError.exit_code,
            Status.INCONCLUSIVE: InconclusiveError.exit_code,
            Status.NOTHING_MEASURED: NothingMeasuredError.exit_code,
        }[self]


class SideInfo(Struct, frozen=True, kw_only=True):
    """One side: the ref as it was given, and the commit in full.

    ``worktree``: the files of the working tree were measured, on top of that commit; ``dirty``: they differ
    from it. ``own_code``: it was built and run by its own code of Assay, not by what is installed.
    ``notes``: what else to know of it. ``commit_time``: the committer's, in ISO 8601, UTC.
    """

    ref: Name
    commit: Name
    worktree: bool
    dirty: bool
    own_code: bool
    notes: tuple[str, ...] = ()
    commit_time: str | None = None


class BuildInfo(Struct, frozen=True, kw_only=True):
    """What one side built of a model, by the manifest of ``artifact``, which is the digest of that.

    ``model`` is as the rows have it, ``name`` as the manifest has. ``sizes`` are those of symbolic dimensions
    that were measured. ``figures`` of the build by metric, in the unit of the rows; absolute and relative
    errors among them, which have no row.
    """

    side: Literal["base", "head"]
    model: Name
    name: Name
    weights: Literal["trained", "random"]
    artifact: Name
    target: Name
    scheme: Name
    profile: Name
    sizes: dict[str, int]
    figures: dict[str, float]


class Finding(Struct, frozen=True, kw_only=True):
    """Whether the machine is fit in one respect; ``widening`` is what its intervals are widened by if not."""

    check: Name
    fit: bool
    detail: str
    widening: float = 1.0


class GateSettings(Struct, frozen=True, kw_only=True):
    """How the gate decided: fractions, and seconds. ``widening`` is that of the machine's findings."""

    threshold: float
    confidence: float
    budget: float
    widening: float
    seed: int
    target: str
    scheme: str | None
    profile: str
    sizes: tuple[str, ...]


class Row(Struct, frozen=True, kw_only=True):
    """One metric of one benchmark.

    ``benchmark`` is the model, with the ``phase`` of a language model and the number of threads where the
    metric depends on them: the time of a prompt, or of a token after it. ``base`` and
    ``head`` are in ``unit``: of a sampled metric, medians over process runs, whose values are ``base_runs``
    and ``head_runs`` in order, round by round. ``ratio`` is head over base, below 1 for better, with its
    ``interval`` at ``confidence`` if it is an estimate. ``threshold`` is the relative worsening that
    counts. ``fails``: it fails the gate. ``accepted``: the reason for which a change that would fail it
    does not.
    """

    benchmark: Name
    model: Name
    threads: int | None
    metric: Name
    unit: str
    verdict: Verdict
    fails: bool
    undecided: bool
    threshold: float
    base: float | None = None
    head: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    rounds: int = 0
    base_runs: tuple[float, ...] = ()
    head_runs: tuple[float, ...] = ()
    accepted: str | None = None
    phase: Phase | None = None
    reason: str


class GateReport(Struct, frozen=True, kw_only=True):
    """A gate run: ``time`` is its end in UTC, ``seconds`` how long it took."""

    schema_version: int = SCHEMA_VERSION
    status: Status
    exit_code: int
    time: Name
    seconds: float
    base: SideInfo
    head: SideInfo
    machine: Machine
    fitness: tuple[Finding, ...]
    settings: GateSettings
    rows: tuple[Row, ...]
    builds: tuple[BuildInfo, ...] = ()
    notes: tuple[str, ...]
    versions: dict[str, str]

    def counts(self) -> dict[Verdict, int]:
        """How many rows have each verdict."""
        return {verdict: sum(row.verdict is verdict for row in self.rows) for verdict in Verdict}


def status_of(rows: tuple[Row, ...]) -> Status:
    """What the gate ends with: the worst of its rows."""
    if any(row.fails for row in rows):
        return Status.REGRESSION
    if any(row.undecided for row in rows):
        return Status.INCONCLUSIVE
    measured = (Verdict.REGRESSION, Verdict.IMPROVEMENT, Verdict.UNCHANGED)
    if not any(row.verdict in measured for row in rows):
        return Status.NOTHING_MEASURED
    return Status.PASSED


def gate_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what ``assay gate --json`` prints, generated from the types above."""
    return published_schema(GateReport, "Assay gate report", SCHEMA_VERSION)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(gate_schema(), indent=2, sort_keys=True) + "\n")
