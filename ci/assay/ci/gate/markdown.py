"""The report as Markdown for a pull request: the status first, details folded, short enough for a comment."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from assay.ci.gate.decision import Verdict
from assay.ci.gate.report import GateReport, Row
from assay.ci.gate.words import change_text, headline, side_text, value_text
from assay.runtime.atomic import replace_file

__all__ = ["MOST_BYTES", "gate_markdown", "write_markdown"]

MOST_BYTES = 60 * 1024
"""Of UTF-8; GitHub refuses comments of more than 65,536 characters."""

_MOST_NEWS_BYTES = 30 * 1024
_HEAD = "| benchmark | metric | verdict | base | head | change |\n| --- | --- | --- | ---: | ---: | ---: |\n"


def write_markdown(path: Path, report: GateReport) -> None:
    """Write the report to ``path``, whole or not at all. Raises StorageError."""
    with replace_file(path) as temporary:
        temporary.write_text(gate_markdown(report), encoding="utf-8")


def gate_markdown(report: GateReport) -> str:
    """The report in at most ``MOST_BYTES`` bytes, however many benchmarks there are."""
    news = sorted((row for row in report.rows if row.verdict is not Verdict.UNCHANGED), key=_urgency)
    same = [row for row in report.rows if row.verdict is Verdict.UNCHANGED]
    parts = [
        f"### assay gate: {_text(headline(report))}\n\n",
        f"`{_code(side_text(report.base))}` to `{_code(side_text(report.head))}`\n\n",
    ]
    if news:
        parts.append(_table(news, _MOST_NEWS_BYTES))
    tail = _details("How it was measured", _facts(report))
    left = MOST_BYTES - _size([*parts, tail]) - 200
    reasons = _bounded((f"- {_name(row)}: {_text(row.accepted or row.reason)}\n" for row in news), left // 2)
    if news:
        parts.append(_details("Reasons", reasons))
        left -= _size(parts[-1:])
    if same:
        parts.append(_details(f"{len(same)} unchanged", _table(same, left)))
    return "".join([*parts, tail])


def _urgency(row: Row) -> tuple[bool, bool, float]:
    """What fails comes first, then what is not decided, then the largest changes."""
    return not row.fails, not row.undecided, -abs((row.ratio or 1.0) - 1)


def _table(rows: Sequence[Row], most: int) -> str:
    return "\n" + _HEAD + _bounded((_line(row) for row in rows), most) + "\n"


def _line(row: Row) -> str:
    verdict = row.verdict.value + (" (accepted)" if row.accepted else "")
    verdict = f"**{verdict}**" if row.fails else verdict
    cells = (
        f"`{_code(row.benchmark)}`",
        row.metric,
        verdict,
        value_text(row.base, row.unit),
        value_text(row.head, row.unit),
        change_text(row),
    )
    return f"| {' | '.join(cells)} |\n"


def _bounded(lines: Iterable[str], most: int) -> str:
    """As many of ``lines`` as fit into ``most`` bytes, and how many did not."""
    kept: list[str] = []
    size, left_out = 0, 0
    for line in lines:
        size += len(line.encode())
        if size <= most:
            kept.append(line)
        else:
            left_out += 1
    if left_out:
        kept.append(f"\nAnd {left_out} more.\n")
    return "".join(kept)


def _facts(report: GateReport) -> str:
    settings, machine = report.settings, report.machine
    lines = [
        f"{machine.cpu}, {machine.cpus} CPUs; {report.seconds:.0f} s in all",
        f"threshold {settings.threshold:.3g}, confidence {settings.confidence:.3g}, intervals widened by "
        f"{settings.widening:.3g}",
        *(finding.detail for finding in report.fitness if not finding.fit),
        *report.notes,
    ]
    return _bounded((f"- {_text(line)}\n" for line in lines), 4096)


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n</details>\n\n"


def _name(row: Row) -> str:
    return f"`{_code(row.benchmark)}` {row.metric}"


def _code(text: str) -> str:
    """``text`` inside of backticks, in a table too."""
    return re.sub(r"\s+", " ", text).replace("`", "'").replace("|", "\\|")[:300]


def _text(text: str) -> str:
    """``text`` as it is, without meaning for Markdown or HTML, and calling nobody (``@name``)."""
    plain = html.escape(re.sub(r"\s+", " ", text), quote=False)[:600]
    return re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", plain).replace("@", "@\u200b")


def _size(parts: Sequence[str]) -> int:
    return sum(len(part.encode()) for part in parts)
