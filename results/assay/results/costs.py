"""The table of what an engine costs beside latency: time to load, memory, size, time to compile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assay.results.record import UNITS, Metric, Record
from assay.results.report import format_value

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["COSTS", "CostRow", "cost_markdown", "cost_rows", "cost_table"]

COSTS: dict[Metric, str] = {
    "load_time": "import and load",
    "first_run_time": "first run",
    "peak_memory": "peak memory",
    "artifact_size": "size on disk",
    "compile_time": "compile time",
    "absolute_error": "largest error",
}


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """One engine on one model; ``values`` are medians in the base unit of each metric."""

    model: str
    engine: str
    threads: int
    values: dict[Metric, float] = field(default_factory=dict)


def cost_rows(records: Iterable[Record]) -> list[CostRow]:
    """A row for each model, thread count and engine that has a record of one of the costs."""
    rows: dict[tuple[object, ...], CostRow] = {}
    records = list(records)
    builds = {(record.model, record.artifact) for record in records}
    several = {model for model, _ in builds if sum(model == other for other, _ in builds) > 1}
    for record in records:
        if record.metric in COSTS:
            of_ours = record.engine == "assay" and record.model in several
            engine = f"{record.engine} ({record.profile})" if of_ours else record.engine
            key = (record.run_id, record.model, record.artifact, record.threads, record.engine)
            row = rows.setdefault(key, CostRow(model=record.model, engine=engine, threads=record.threads))
            row.values[record.metric] = record.value
    return list(rows.values())


def _headings() -> list[str]:
    return ["model", "engine", "threads", *COSTS.values()]


def _cells(row: CostRow) -> list[str]:
    values = [
        format_value(row.values[metric], UNITS[metric]) if metric in row.values else "" for metric in COSTS
    ]
    return [row.model, row.engine, str(row.threads), *values]


def cost_table(rows: Sequence[CostRow], *, title: str | None = None) -> Table:
    """The rows as a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, heading in enumerate(_headings()):
        table.add_column(heading, justify="left" if index < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    return table


def cost_markdown(rows: Sequence[CostRow]) -> str:
    """The rows as a Markdown table that ends with a newline."""
    headings = _headings()
    rules = ["---" if index < 2 else "---:" for index in range(len(headings))]
    lines = [f"| {' | '.join(headings)} |", f"|{'|'.join(rules)}|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in _cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"
