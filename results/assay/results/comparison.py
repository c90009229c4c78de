"""Tables that put engines, or build profiles, side by side: one row a model, one column for each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from assay.results.record import Record
from assay.results.report import format_value
from assay.results.statistics import Ratio, ratio_of_medians, round_medians

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "PeerRow",
    "ProfileRow",
    "comparison_markdown",
    "comparison_table",
    "geometric_mean",
    "peer_cells",
    "peer_rows",
    "profile_cells",
    "profile_rows",
]

_OURS = "assay"
_TITLES = {"onnxruntime": "ONNX Runtime", "numpy": "NumPy"}
_MEAN = "geometric mean"
# Each profile is compared with the one before it.
_PROFILES = ("debug", "release", "pgo")

Cells = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class PeerRow:
    """Our latency (seconds) on one model, and each peer's over it: above 1 where ours is faster."""

    model: str
    sizes: dict[str, int]
    threads: int
    build: str
    latency: float
    ratios: dict[str, Ratio] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """One model built with several profiles: latency and build time (seconds, where known) of each.

    ``gains`` has, for each profile but the first, the latency of the one before over its own.
    """

    model: str
    sizes: dict[str, int]
    threads: int
    latencies: dict[str, float]
    builds: dict[str, float]
    gains: dict[str, Ratio]


def _group(record: Record) -> tuple[object, ...]:
    return (record.run_id, record.model, tuple(sorted(record.sizes.items())), record.threads)


def peer_rows(records: Iterable[Record]) -> list[PeerRow]:
    """A row for each latency of ours that has a peer's beside it, in the order of the records."""
    latencies = [record for record in records if record.metric == "latency"]
    rows = []
    for ours in latencies:
        beside = [other for other in latencies if other.engine != _OURS and _group(other) == _group(ours)]
        if ours.engine != _OURS or not beside:
            continue
        # Peers of the same artifact's measurement first: their rounds took turns with it.
        same = [other for other in beside if other.artifact == ours.artifact] or beside
        rows.append(
            PeerRow(
                model=ours.model,
                sizes=ours.sizes,
                threads=ours.threads,
                build=ours.profile,
                latency=ours.value,
                ratios={other.engine: _ratio(other, ours) for other in same},
            )
        )
    return rows


def profile_rows(records: Sequence[Record]) -> list[ProfileRow]:
    """A row for each model, sizes and thread count that was measured with several profiles."""
    groups: dict[tuple[object, ...], dict[str, Record]] = {}
    builds: dict[tuple[str, str], float] = {}
    for record in records:
        if record.engine == _OURS and record.metric == "latency":
            groups.setdefault(_group(record), {})[record.profile] = record
        elif record.engine == _OURS and record.metric == "compile_time":
            builds[record.artifact, record.profile] = record.value
    rows = []
    for found in groups.values():
        names = sorted(found, key=lambda name: (_order(name), name))
        if len(names) < 2:
            continue
        first = found[names[0]]
        rows.append(
            ProfileRow(
                model=first.model,
                sizes=first.sizes,
                threads=first.threads,
                latencies={name: found[name].value for name in names},
                builds={
                    name: builds[found[name].artifact, name]
                    for name in names
                    if (found[name].artifact, name) in builds
                },
                gains={name: _ratio(found[before], found[name]) for before, name in pairwise(names)},
            )
        )
    return rows


def _order(profile: str) -> int:
    return _PROFILES.index(profile) if profile in _PROFILES else len(_PROFILES)


def _ratio(numerator: Record, denominator: Record) -> Ratio:
    return ratio_of_medians(round_medians(numerator.rounds()), round_medians(denominator.rounds()))


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean. Raises ValueError where there are no values."""
    logarithms = [math.log(value) for value in values]
    if not logarithms:
        raise ValueError("no values have no mean")
    return math.exp(math.fsum(logarithms) / len(logarithms))


def peer_cells(rows: Sequence[PeerRow], *, operations: Mapping[str, int] | None = None) -> Cells:
    """Headings, then a line for each row, then the geometric mean of each peer and number of threads.

    ``operations`` of one call by model add a column of our operations a second.
    """
    engines = list(dict.fromkeys(engine for row in rows for engine in row.ratios))
    several = len({row.build for row in rows}) > 1
    rate = ["GFLOP/s"] if operations else []
    lines = [
        ["model", "threads", "ours", *rate, *(f"{_TITLES.get(engine, engine)} / ours" for engine in engines)]
    ]
    for row in rows:
        name = _named(row.model, row.sizes) + (f" ({row.build})" if several else "")
        count = (operations or {}).get(row.model)
        rates = [f"{count / row.latency / 1e9:.3g}" if count else ""] if operations else []
        ratios = [_ratio_text(row.ratios.get(engine)) for engine in engines]
        lines.append([name, str(row.threads), format_value(row.latency, "s"), *rates, *ratios])
    for threads, build in dict.fromkeys((row.threads, row.build) for row in rows):
        means = []
        for engine in engines:
            found = [
                row.ratios[engine].value
                for row in rows
                if (row.threads, row.build) == (threads, build) and engine in row.ratios
            ]
            means.append(f"{geometric_mean(found):.2f} of {len(found)}" if found else "")
        name = f"{_MEAN} ({build})" if several else _MEAN
        lines.append([name, str(threads), "", *([""] if operations else []), *means])
    return lines


def profile_cells(rows: Sequence[ProfileRow]) -> Cells:
    """Headings, then a line for each row: latencies, build times, and gains over the one before."""
    names = sorted({name for row in rows for name in row.latencies}, key=lambda name: (_order(name), name))
    pairs = list(pairwise(names))
    lines = [
        ["model", "threads", *names, *(f"{name} build" for name in names)]
        + [f"{before} / {name}" for before, name in pairs]
    ]
    for row in rows:
        latencies = [
            format_value(row.latencies[name], "s") if name in row.latencies else "" for name in names
        ]
        builds = [format_value(row.builds[name], "s") if name in row.builds else "" for name in names]
        gains = [_ratio_text(row.gains.get(name)) for _, name in pairs]
        lines.append([_named(row.model, row.sizes), str(row.threads), *latencies, *builds, *gains])
    for threads in dict.fromkeys(row.threads for row in rows):
        means = []
        for _, name in pairs:
            found = [row.gains[name].value for row in rows if row.threads == threads and name in row.gains]
            means.append(f"{geometric_mean(found):.2f} of {len(found)}" if found else "")
        lines.append([_MEAN, str(threads), *[""] * (2 * len(names)), *means])
    return lines


def _named(model: str, sizes: Mapping[str, int]) -> str:
    return ", ".join([model, *(f"{name}={size}" for name, size in sizes.items())])


def _ratio_text(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    interval = "" if ratio.interval is None else f" ({ratio.interval[0]:.2f} to {ratio.interval[1]:.2f})"
    return f"{ratio.value:.2f}{interval}"


def comparison_table(cells: Cells, *, title: str) -> Table:
    """The cells as a table for a terminal; lines of means stand apart."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, heading in enumerate(cells[0]):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    previous = ""
    for line in cells[1:]:
        if line[0].startswith(_MEAN) and not previous.startswith(_MEAN):
            table.add_section()
        previous = line[0]
        table.add_row(*(Text(cell) for cell in line))
    return table


def comparison_markdown(cells: Cells) -> str:
    """The cells as a Markdown table that ends with a newline."""
    rules = ["---:" if index else "---" for index in range(len(cells[0]))]
    lines = [cells[0], rules, *cells[1:]]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
