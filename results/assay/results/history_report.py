"""What `assay regressions` says: the steps of a store's benchmarks, as a table and as JSON.

The schema of the JSON is checked in as ``docs/schema/regressions.schema.json``; write it anew with
``python -m assay.results.history_report > docs/schema/regressions.schema.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import UsageError
from assay.results.commits import Commit, read_commits
from assay.results.history import History, Shift, find_shifts
from assay.results.report import format_value
from assay.results.series import Filter, Series
from assay.schema import published_schema

if TYPE_CHECKING:
    from rich.table import Table

    from assay.results.store import Store

__all__ = [
    "REPORT_VERSION",
    "HistoryReport",
    "commits_of",
    "history_schema",
    "report_history",
    "shift_table",
]

REPORT_VERSION = 2
_HASH = 10


@dataclass(frozen=True, kw_only=True)
class HistoryReport:
    """Steps newest first, each in one list: for the worse, for the better, and those not yet sure.

    ``unconfirmed`` rest on the last one or two commits of a series: measuring again decides. ``judged`` and
    ``short`` count series with enough commits for a judgement and with too few. ``left_out`` names records
    and files that mean nothing, ``notes`` what else was left out and clocks that cannot be right.
    """

    schema_version: int = REPORT_VERSION
    regressions: tuple[Shift, ...]
    improvements: tuple[Shift, ...]
    unconfirmed: tuple[Shift, ...]
    judged: int
    short: int
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def report_history(
    store: Store,
    chosen: Filter,
    commits: Sequence[Commit] = (),
    *,
    since: datetime | None = None,
    least_effect: float | None = None,
) -> HistoryReport:
    """The steps at commits from ``since`` on, judged by the noise of all that ``chosen`` takes."""
    series = store.series(chosen)
    if commits and not _known(series, commits):
        commits = ()
    history = find_shifts(series, commits, least_effect=least_effect)
    shifts = [
        replace(shift, besides=_besides(store, shift))
        for shift in history.shifts
        if since is None or shift.at >= since
    ]
    return _report(history, shifts, tuple(str(exclusion) for exclusion in store.exclusions))


def _report(history: History, shifts: Sequence[Shift], left_out: tuple[str, ...]) -> HistoryReport:
    return HistoryReport(
        regressions=tuple(shift for shift in shifts if shift.confirmed and shift.worse),
        improvements=tuple(shift for shift in shifts if shift.confirmed and not shift.worse),
        unconfirmed=tuple(shift for shift in shifts if not shift.confirmed),
        judged=history.judged,
        short=history.short,
        notes=history.notes,
        left_out=left_out,
    )


def commits_of(repository: Path | None, ref: str | None) -> list[Commit]:
    """The commits up to ``ref`` of the repository, or of the one that the current folder is in.

    None where nobody named one and there is none. Raises UsageError.
    """
    try:
        return read_commits(repository or Path.cwd(), ref or "HEAD")
    except UsageError:
        if repository is None and ref is None:
            return []
        raise


def _known(series: Sequence[Series], commits: Sequence[Commit]) -> bool:
    """Whether any of the points is of these commits: otherwise the repository is another one."""
    hashes = {commit.hash for commit in commits}
    return any(point.commit in hashes for each in series for point in each.points)


def _besides(store: Store, shift: Shift) -> tuple[str, ...]:
    """What else was different when the new level was first measured: versions of packages, the system."""
    before, after = (store.record(key) for key in shift.runs)
    names = [name for name in before.versions if name in after.versions and name != "assay"]
    changed = [
        f"{name} {before.versions[name]} to {after.versions[name]}"
        for name in names
        if before.versions[name] != after.versions[name]
    ]
    if before.machine.system != after.machine.system:
        changed.append(f"{before.machine.system} to {after.machine.system}")
    return tuple(changed)


def shift_table(shifts: Sequence[Shift], *, title: str) -> Table:
    """The steps as a table for a terminal, one line each, with what else changed then below it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for heading in ("commit", "benchmark", "metric", "before", "after", "change", "95% interval"):
        right = heading in ("before", "after", "change")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for shift in shifts:
        where = f"{_printable(shift.commit[:_HASH])}\n{shift.at:%Y-%m-%d}"
        if shift.unmeasured:
            where += f"\nor of the {shift.unmeasured} before"
        what = [shift.key.benchmark(), f"on machine {shift.key.machine}"]
        what += [f"“{shift.subject}”"] if shift.subject else []
        what += [f"at the same time: {', '.join(shift.besides)}"] if shift.besides else []
        interval = shift.interval
        table.add_row(
            Text(where),
            Text("\n".join(_printable(line) for line in what)),
            shift.key.metric,
            format_value(shift.before, shift.unit),
            format_value(shift.after, shift.unit),
            Text(_percent(shift.ratio), style="red" if shift.worse else "green"),
            "" if interval is None else f"{_percent(interval[0])} to {_percent(interval[1])}",
        )
    return table


def _printable(text: str) -> str:
    """``text`` without what would steer the terminal: records and commits come from elsewhere."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%"


def history_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the report."""
    return published_schema(HistoryReport, "Assay report of a history", REPORT_VERSION)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(history_schema(), indent=2, sort_keys=True) + "\n")
