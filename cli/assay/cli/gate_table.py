"""The report of a gate run for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from assay.ci.gate.decision import Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from assay.ci.gate.report import GateReport, Row

__all__ = ["gate_tables"]

_FEW_BENCHMARKS = 60
_STYLES = {
    Verdict.REGRESSION: "bold red",
    Verdict.BROKEN: "bold red",
    Verdict.MISSING: "yellow",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.IMPROVEMENT: "green",
    Verdict.UNCHANGED: "",
}


def gate_tables(report: GateReport, *, everything: bool) -> list[RenderableType]:
    """A table, and lines around it; without ``everything``, hardly what is unchanged."""
    from rich.text import Text

    from assay.ci.gate.words import headline, side_text

    few = len({row.benchmark for row in report.rows}) <= _FEW_BENCHMARKS
    shown = [row for row in report.rows if everything or _is_worth_showing(row, few=few)]
    found: list[RenderableType] = [
        Text(f"base: {side_text(report.base)}"),
        Text(f"head: {side_text(report.head)}"),
    ]
    if shown:
        found.append(_table(shown))
    if len(shown) < len(report.rows):
        found.append(Text(f"{len(report.rows) - len(shown)} more are unchanged; -v shows them."))
    for finding in report.fitness:
        if not finding.fit:
            found.append(Text(f"machine: {finding.detail}", style="yellow"))
    found += [Text(f"note: {note}") for note in report.notes]
    found.append(Text(headline(report), style="bold"))
    return found


def _is_worth_showing(row: Row, *, few: bool) -> bool:
    return row.verdict is not Verdict.UNCHANGED or (few and row.metric == "latency")


def _table(rows: Sequence[Row]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from assay.ci.gate.words import change_text, value_text

    table = Table("benchmark", "metric", "verdict", "base", "head", "change", "runs", "why")
    for row in rows:
        verdict = row.verdict.value + (", accepted" if row.accepted else "")
        table.add_row(
            row.benchmark,
            row.metric,
            Text(verdict, style="" if row.accepted else _STYLES[row.verdict]),
            value_text(row.base, row.unit),
            value_text(row.head, row.unit),
            change_text(row),
            str(row.rounds) if row.rounds else "",
            row.accepted or row.reason,
        )
    return table
