"""The table of a language model: one line for each thing that its user feels, one column for each engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from assay.results.record import Metric, Record
from assay.results.report import format_value
from assay.results.statistics import Ratio, ratio_of_medians, round_medians

__all__ = ["language_cells"]

_OURS = "assay"
_METRICS: dict[Metric, str] = {
    "ttft": "time to first token",
    "prefill": "prefill",
    "decode": "decode",
    "load_time": "import and load",
    "peak_memory": "peak memory",
    "artifact_size": "size on disk",
    "perplexity": "perplexity",
}
_RATES = frozenset[Metric]({"prefill", "decode"})


def language_cells(records: Iterable[Record]) -> list[list[str]]:
    """Headings, then a line for each model, thread count, metric and sizes that was measured.

    A peer's column has its own figure, and how many times better ours is: its time, memory or size over ours,
    our rate over its. Above 1 is in our favour everywhere.
    """
    groups: dict[tuple[object, ...], dict[str, Record]] = {}
    for record in records:
        if record.metric in _METRICS:
            sizes = tuple(sorted(record.sizes.items()))
            key = (record.model, record.scheme, record.threads, record.metric, sizes)
            groups.setdefault(key, {})[record.engine] = record
    engines = list(dict.fromkeys(engine for found in groups.values() for engine in found))
    peers = [engine for engine in engines if engine != _OURS]
    headings = ["model", "threads", "measured", "ours"]
    lines = [headings + [cell for peer in peers for cell in (peer, f"ours against {peer}")]]
    for found in groups.values():
        any_record = next(iter(found.values()))
        ours = found.get(_OURS)
        line = [
            f"{any_record.model} ({any_record.scheme})",
            str(any_record.threads),
            _measured(any_record),
            "" if ours is None else format_value(ours.value, ours.unit),
        ]
        for peer in peers:
            theirs = found.get(peer)
            line.append("" if theirs is None else format_value(theirs.value, theirs.unit))
            line.append("" if theirs is None or ours is None else _text(_better(ours, theirs)))
        lines.append(line)
    return lines


def _measured(record: Record) -> str:
    sizes = record.sizes
    if record.metric == "decode":
        where = f"at {sizes['depth']} tokens" if "depth" in sizes else ""
    else:
        where = f"{sizes['prompt']} tokens" if record.metric in ("ttft", "prefill") else ""
    batch = sizes.get("batch", 1)
    parts = [_METRICS[record.metric], where, f"batch {batch}" if batch > 1 else ""]
    return ", ".join(part for part in parts if part)


def _better(ours: Record, theirs: Record) -> Ratio:
    pair: Sequence[Record] = (ours, theirs) if ours.metric in _RATES else (theirs, ours)
    first, second = (round_medians(record.rounds()) for record in pair)
    return ratio_of_medians(first, second)


def _text(ratio: Ratio) -> str:
    interval = "" if ratio.interval is None else f" ({ratio.interval[0]:.2f} to {ratio.interval[1]:.2f})"
    return f"{ratio.value:.2f}{interval}"
