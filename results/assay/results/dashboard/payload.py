"""The data files of the site: rows of the front page, and one file for each configuration.

They are JavaScript that calls ``Assay.receive``, because a page from ``file://`` may load scripts and may not
fetch. The index is bounded by thinning each trend, a configuration's file by leaving out its oldest runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from assay.results.changes import FEWEST_POINTS
from assay.results.dashboard.model import (
    OURS,
    Change,
    Configuration,
    Entry,
    Line,
    Machine,
    Point,
    headlines,
)
from assay.results.record import OF_ARTIFACTS

__all__ = ["as_script", "detail", "identifier", "index"]

# A sparkline is that many pixels wide at most; more points cannot be told apart.
_TREND_POINTS = 40
# With all metrics and three engines, a file of half a megabyte.
_MOST_RUNS = 500
_MOST_CHANGES = 200
_SUBJECT = 120
_DIGITS = 5
# In a script, `</script>` and line separators end what they are in.
_ESCAPES = {code: f"\\u{code:04x}".encode() for code in (0x3C, 0x3E, 0x26)}
_SEPARATORS = {"\u2028": b"\\u2028", "\u2029": b"\\u2029"}


def as_script(name: str, data: Any) -> bytes:
    """A script that hands ``data`` over as ``name``; nothing inside can end a string, script or comment."""
    content = msgspec.json.encode([name, data])
    for code, escape in _ESCAPES.items():
        content = content.replace(bytes([code]), escape)
    for separator, escape in _SEPARATORS.items():
        content = content.replace(separator.encode(), escape)
    return b"Assay.receive(..." + content + b");\n"


def identifier(configuration: Configuration) -> str:
    """A name for files and addresses: 16 hexadecimal digits, whatever the model is called."""
    return hashlib.sha256(msgspec.json.encode(configuration)).hexdigest()[:16]


def index(entries: Sequence[Entry], subjects: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """The rows of the front page, their machines, the peers, and the newest change points of all metrics.

    ``subjects``: the first lines of messages, by commit. With fewer commits than ``fewest`` of the result no
    change point is looked for.
    """
    machines: dict[Machine, int] = {}
    rows: list[dict[str, Any]] = []
    for entry in entries:
        machine, place = entry.configuration.machine, None
        if machine.name:
            place = machines.setdefault(machine, len(machines))
        metrics: list[str | None] = [*headlines(entry)]
        rows += [_row(entry, metric, place) for metric in metrics or [None]]
    if any("method" in row for row in rows):
        rows = [{"method": "bench"} | row for row in rows]
    engines = dict.fromkeys(line.engine for entry in entries for line in entry.ratios)
    return {
        "rows": rows,
        "machines": [msgspec.to_builtins(machine) for machine in machines],
        "peers": sorted(engines, key=lambda engine: (engine != "onnxruntime", engine)),
        "changes": _newest_changes(entries, subjects),
        "fewest": FEWEST_POINTS,
    }


def _row(entry: Entry, metric: str | None, machine: int | None) -> dict[str, Any]:
    configuration, build = entry.configuration, entry.build
    row: dict[str, Any] = {
        "id": identifier(configuration),
        "model": configuration.model,
        "target": configuration.target,
        "scheme": configuration.scheme,
        "profile": configuration.profile,
    }
    if machine is not None:
        row |= {"machine": machine, "threads": configuration.threads}
    if configuration.sizes:
        row["sizes"] = configuration.sizes
    if configuration.weights == "random":
        row["random"] = True
    if configuration.method != "bench":
        row["method"] = configuration.method
    if build is not None:
        row["executed"] = build.executed
        if build.quality is not None:
            row["quality"] = msgspec.to_builtins(build.quality)
        roofline = build.rooflines.get(configuration.threads)
        if roofline is not None:
            row["roof"] = msgspec.to_builtins(roofline)
    size = entry.line("artifact_size")
    if size is not None:
        row["size"] = size.points[-1].value
    elif build is not None and build.size is not None:
        row["size"] = build.size
    line = entry.line(metric) if metric else None
    return row if line is None else row | _figures(line, entry)


def _figures(line: Line, entry: Entry) -> dict[str, Any]:
    """What a row says of one metric: the newest figure, the ratios to peers, the trend, the last change."""
    last = line.points[-1]
    trend = _thinned(line.points)
    figures: dict[str, Any] = {
        "metric": line.metric,
        "unit": line.unit,
        "value": _short(last.value),
        "commit": last.commit,
        "time": last.time,
        "runs": len(line.points),
        "trend": [_short(point.value) for point in trend],
    }
    if any(point.low is not None for point in trend):
        figures["spread"] = [bound for point in trend for bound in _spread(point)]
    if last.low is not None and last.high is not None:
        figures["interval"] = [_short(last.low), _short(last.high)]
    ratios = {ratio.engine: ratio.points[-1] for ratio in entry.ratios if ratio.metric == line.metric}
    if ratios:
        figures["peers"] = {engine: _ratio(point) for engine, point in ratios.items()}
    older = {engine: point.time for engine, point in ratios.items() if point.run != last.run}
    if older:
        figures["older"] = older
    if line.changes:
        figures["change"] = _change(line, line.changes[-1])
        figures["change"]["at"] = _short(line.changes[-1].index / max(1, len(line.points) - 1))
    return figures


def _spread(point: Point) -> tuple[int, int]:
    """How far the interval goes below and above the figure, in thousandths of it; 0 where there is none."""
    if point.low is None or point.high is None or not point.value:
        return 0, 0
    return round(1000 * (1 - point.low / point.value)), round(1000 * (point.high / point.value - 1))


def _ratio(point: Point) -> list[float]:
    bounds = [] if point.low is None or point.high is None else [_short(point.low), _short(point.high)]
    return [_short(point.value), *bounds]


def _change(line: Line, change: Change) -> dict[str, Any]:
    point = line.points[change.index]
    return {
        "commit": point.commit,
        "time": point.time,
        "ratio": _short(change.ratio),
        "better": (change.ratio > 1) == line.higher,
        **({} if change.confirmed else {"unconfirmed": True}),
    }


def _newest_changes(entries: Iterable[Entry], subjects: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    # What an artifact is stands beside the figures of every method, and is told once.
    told: set[tuple[Configuration, str]] = set()
    for entry in entries:
        configuration = entry.configuration
        for line in entry.lines:
            plain = (msgspec.structs.replace(configuration, method="bench"), line.metric)
            if line.engine != OURS or (line.metric in OF_ARTIFACTS and plain in told):
                continue
            told.add(plain)
            for change in line.changes:
                found.append(
                    {
                        "id": identifier(configuration),
                        "model": configuration.model,
                        "target": configuration.target,
                        "scheme": configuration.scheme,
                        "threads": configuration.threads,
                        "metric": line.metric,
                        **_change(line, change),
                    }
                )
    newest = sorted(found, key=lambda change: str(change["time"]), reverse=True)[:_MOST_CHANGES]
    return [change | _subject(change["commit"], subjects) for change in newest]


def _subject(commit: str | None, subjects: Mapping[str, str]) -> dict[str, str]:
    subject = subjects.get(commit or "")
    return {"subject": subject[:_SUBJECT]} if subject else {}


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most ``_TREND_POINTS`` of ``points``, evenly spread, the first and the last among them."""
    if len(points) <= _TREND_POINTS:
        return list(points)
    step = (len(points) - 1) / (_TREND_POINTS - 1)
    return [points[round(place * step)] for place in range(_TREND_POINTS)]


def detail(entry: Entry, subjects: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """All lines of one configuration: its runs, oldest first, and figures by the place of their run."""
    lines = [*entry.lines, *entry.ratios]
    runs: dict[str, Point] = {}
    for line in lines:
        for point in line.points:
            runs.setdefault(point.run, point)
    ordered = sorted(runs.values(), key=lambda point: (point.time, point.run))
    kept = ordered[-_MOST_RUNS:]
    places = {point.run: place for place, point in enumerate(kept)}
    return {
        "configuration": msgspec.to_builtins(entry.configuration),
        "build": msgspec.to_builtins(entry.build) if entry.build else None,
        "headlines": headlines(entry),
        "left_out": len(ordered) - len(kept),
        "runs": [
            {"run": point.run, "commit": point.commit, "time": point.time}
            | ({"dirty": True} if point.dirty else {})
            | _subject(point.commit, subjects)
            for point in kept
        ],
        "lines": [_line(line, places) for line in entry.lines],
        "ratios": [_line(line, places) for line in entry.ratios],
    }


def _line(line: Line, places: dict[str, int]) -> dict[str, Any]:
    # Of several records of one run, as of a file that was measured again, the last counts.
    kept = list({point.run: point for point in line.points if point.run in places}.values())
    found: dict[str, Any] = {
        "metric": line.metric,
        "engine": line.engine,
        "unit": line.unit,
        "higher": line.higher,
        "at": [places[point.run] for point in kept],
        "value": [_short(point.value) for point in kept],
    }
    if any(point.low is not None for point in kept):
        found["low"] = [None if point.low is None else _short(point.low) for point in kept]
        found["high"] = [None if point.high is None else _short(point.high) for point in kept]
    changes = [
        {"at": places[line.points[change.index].run], **_change(line, change)}
        for change in line.changes
        if line.points[change.index].run in places
    ]
    if changes:
        found["changes"] = changes
    return found


def _short(value: float) -> float:
    """``value`` in as many digits as anyone reads."""
    return float(f"{value:.{_DIGITS}g}")
