"""Words and figures that every form of the report shares."""

from __future__ import annotations

from assay.ci.gate.report import GateReport, Row, SideInfo, Status

__all__ = ["change_text", "headline", "side_text", "value_text"]

_HEADLINES = {
    Status.PASSED: "Passed",
    Status.REGRESSION: "Failed",
    Status.INCONCLUSIVE: "Inconclusive",
    Status.NOTHING_MEASURED: "Nothing was measured",
}


def headline(report: GateReport) -> str:
    """One line: how it ended, and how many rows have which verdict."""
    counts = [f"{count} {verdict.value}" for verdict, count in report.counts().items() if count]
    accepted = sum(row.accepted is not None for row in report.rows)
    if accepted:
        counts.append(f"{accepted} accepted")
    return f"{_HEADLINES[report.status]}: {', '.join(counts) or 'no benchmark'}."


def side_text(side: SideInfo) -> str:
    """What was measured of a side."""
    short = side.commit[:10]
    if side.worktree:
        what = f"the working tree on {short}" + (
            ", with changes that are not committed" if side.dirty else ""
        )
    else:
        what = short if side.commit.startswith(side.ref) else f"{side.ref} ({short})"
    return "; ".join([what, *side.notes])


def value_text(value: float | None, unit: str) -> str:
    """A value with its unit, scaled for people."""
    if value is None:
        return ""
    if unit == "s":
        scale, name = next(
            (pair for pair in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")) if value >= pair[0]), (1e-9, "ns")
        )
        return f"{value / scale:.4g} {name}"
    if unit in ("bytes", "instructions") and value >= 1e4:
        scale, name = next(pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= pair[0])
        return f"{value / scale:.4g} {name}{'B' if unit == 'bytes' else ''}"
    return f"{value:.4g}"


def change_text(row: Row) -> str:
    """The change in percent, with its interval."""
    if row.ratio is None:
        return ""
    text = f"{row.ratio - 1:+.1%}" if row.ratio < 100 else f"x{row.ratio:.3g}"
    if row.interval is None:
        return "0%" if row.ratio == 1 else text
    return f"{text} ({row.interval[0] - 1:+.1%} to {row.interval[1] - 1:+.1%})"
