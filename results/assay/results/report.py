"""Tables of records: rows of figures with the ratio to a peer, as a rich table, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from assay.results.record import Metric, Record, Unit
from assay.results.statistics import interquartile_range, ratio_of_medians, round_medians

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "HEADINGS",
    "Row",
    "format_value",
    "markdown_table",
    "problem_lines",
    "report_rows",
    "rich_table",
    "rows_as_json",
]

_OURS = "assay"
HEADINGS = ("model", "engine", "threads", "median", "spread (IQR)", "{reference} / ours", "95% interval")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    ``median`` and ``spread`` (the interquartile range of the rounds' medians) are in ``unit``. ``ratio`` is
    the reference engine's figure over ours, above 1 where ours is better, and stands on our rows only.
    ``build`` tells our artifacts apart where there are several of a model. A row with ``problem`` has no
    figures and says why.
    """

    model: str
    engine: str
    threads: int | None
    metric: Metric
    sizes: dict[str, int] = field(default_factory=dict)
    unit: Unit | None = None
    weights: str | None = None
    build: str | None = None
    median: float | None = None
    spread: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    problem: str | None = None


def report_rows(
    records: Iterable[Record], *, metric: Metric = "latency", reference: str = "onnxruntime"
) -> list[Row]:
    """Rows of one metric, one for each record, our engine first within a model and thread count."""
    chosen = [record for record in records if record.metric == metric]
    references: dict[tuple[object, ...], Record] = {}
    for record in chosen:
        if record.engine == reference:
            references[_group(record)] = record
            # Of several builds of a model, the peer takes turns with all and is recorded with one.
            references.setdefault(_comparable(record), record)
    order = {key: index for index, key in enumerate(dict.fromkeys(_group(record) for record in chosen))}
    chosen.sort(key=lambda record: (order[_group(record)], record.engine != _OURS))
    artifacts: dict[str, set[str]] = {}
    for record in chosen:
        artifacts.setdefault(record.model, set()).add(record.artifact)
    return [
        _row(record, _reference(record, references), several=len(artifacts[record.model]) > 1)
        for record in chosen
    ]


def _comparable(record: Record) -> tuple[object, ...]:
    """What two records must share to be compared."""
    return (record.run_id, record.model, tuple(sorted(record.sizes.items())), record.threads)


def _group(record: Record) -> tuple[object, ...]:
    """What records of one measurement share."""
    return (*_comparable(record), record.artifact)


def _reference(record: Record, references: Mapping[tuple[object, ...], Record]) -> Record | None:
    return references.get(_group(record)) or references.get(_comparable(record))


def _row(record: Record, reference: Record | None, *, several: bool) -> Row:
    medians = round_medians(record.rounds())
    ratio = None
    if reference is not None and record.engine == _OURS:
        ratio = ratio_of_medians(round_medians(reference.rounds()), medians)
    build = None
    if several and record.engine == _OURS:
        short = record.artifact.rpartition(":")[2][:8]
        build = f"{record.target} {record.scheme} {record.profile} {short}"
    return Row(
        model=record.model,
        engine=record.engine,
        threads=record.threads,
        metric=record.metric,
        sizes=record.sizes,
        unit=record.unit,
        weights=record.weights,
        build=build,
        median=record.value,
        spread=interquartile_range(medians) if len(medians) > 1 else None,
        ratio=ratio.value if ratio else None,
        interval=ratio.interval if ratio else None,
    )


def format_value(value: float, unit: Unit) -> str:
    """A value for people: three digits with a prefix, such as ``1.23 ms`` or ``45.6 MB`` (10**6 bytes)."""
    if unit == "tokens/s":
        return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} tokens/s"
    if unit == "1":
        return f"{value:.3g}"
    if unit in ("kernels", "instructions"):
        return f"{value:,.0f} {unit}"
    if unit == "bytes":
        steps = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")]
    else:
        steps = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")]
    # 999.5 and above would be rounded to four digits: it belongs to the next prefix.
    scale, prefix = next((step for step in steps if value >= 0.9995 * step[0]), steps[-1])
    scaled = value / scale
    if unit == "bytes" and scale == 1.0:
        return f"{scaled:.0f} {prefix}"
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {prefix}"


def rich_table(rows: Sequence[Row], *, title: str | None = None, reference: str = "onnxruntime") -> Table:
    """The rows as a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, heading in enumerate(_headings(reference)):
        table.add_column(heading, justify="left" if index < 2 else "right", overflow="fold")
    previous: tuple[object, ...] | None = None
    for row in rows:
        group = (row.model, row.sizes, row.threads)
        if previous is not None and group != previous:
            table.add_section()
        previous = group
        cells = [Text(cell) for cell in _cells(row)]
        if row.problem is not None:
            # The reason would make the column wide; `problem_lines` has it.
            cells[3] = Text("not measured", style="red")
        elif row.ratio is not None:
            cells[5].stylize("green" if row.ratio >= 1 else "yellow")
        table.add_row(*cells)
    return table


def problem_lines(rows: Sequence[Row]) -> list[str]:
    """One line for each row without figures, saying why."""
    return [f"{row.model}, {row.engine}: {row.problem}" for row in rows if row.problem is not None]


def markdown_table(rows: Sequence[Row], *, reference: str = "onnxruntime") -> str:
    """The rows as a Markdown table that ends with a newline."""
    headings = _headings(reference)
    lines = [
        f"| {' | '.join(headings)} |",
        f"|{'|'.join('---' if index < 2 else '---:' for index in range(len(headings)))}|",
    ]
    for row in rows:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in _cells(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rows_as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as objects for JSON, with every field."""
    return [asdict(row) for row in rows]


def _headings(reference: str) -> list[str]:
    name = {"onnxruntime": "ONNX Runtime"}.get(reference, reference)
    return [heading.format(reference=name) for heading in HEADINGS]


def _cells(row: Row) -> list[str]:
    model = ", ".join([row.model, *(f"{name}={size}" for name, size in row.sizes.items())])
    if row.weights == "random":
        model += " (random weights)"
    engine = f"{row.engine} ({row.build})" if row.build else row.engine
    threads = "" if row.threads is None else str(row.threads)
    if row.problem is not None or row.unit is None or row.median is None:
        return [model, engine, threads, row.problem or "", "", "", ""]
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    interval = "" if row.interval is None else f"{row.interval[0]:.2f} to {row.interval[1]:.2f}"
    spread = "" if row.spread is None else format_value(row.spread, row.unit)
    return [model, engine, threads, format_value(row.median, row.unit), spread, ratio, interval]
