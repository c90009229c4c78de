"""``assay regressions``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from assay.cli.options import output_options, threads_type
from assay.cli.output import Output
from assay.cli.results_place import open_results, parse_since, results_option
from assay.errors import NothingMeasuredError, PastRegressionError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from assay.results.history_report import HistoryReport
    from assay.results.series import Filter

__all__ = ["command"]

_LEFT_OUT_SHOWN = 5


@click.command("regressions")
@results_option
@click.option("--since", metavar="DATE", help="Only steps at commits from then on: 2026-01-31, 30d, 4w.")
@click.option("--model", "models", multiple=True, help="Only this model; may be repeated.")
@click.option("--target", "targets", multiple=True, help="Only this target; may be repeated.")
@click.option("--scheme", "schemes", multiple=True, help="Only this scheme; may be repeated.")
@click.option("--profile", "profiles", multiple=True, help="Only this build profile; may be repeated.")
@click.option(
    "--threads", type=threads_type, multiple=True, help="Only with so many threads; may be repeated."
)
@click.option("--metric", "metrics", multiple=True, help="Only this metric; may be repeated.")
@click.option(
    "--machine", "machines", multiple=True, help="Only this machine, by its identity; may be repeated."
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=("assay",),
    show_default=True,
    help="Whose figures; may be repeated. A peer that steps too points at the machine, not at the commit.",
)
@click.option(
    "--threshold",
    metavar="PERCENT",
    help="The least change that matters; a benchmark's own noise may ask for more.  [default: 1%, and 0.1% "
    "of sizes of artifacts]",
)
@click.option(
    "--repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The git repository whose order of commits counts.  [default: that of the current folder]",
)
@click.option("--branch", metavar="REF", help="Only commits up to this one.  [default: HEAD]")
@click.option("--all", "everything", is_flag=True, help="Improvements too.")
@click.option("--fail", is_flag=True, help="Exit with code 30 when there is a regression.")
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    place: str | None,
    since: str | None,
    threshold: str | None,
    repository: Path | None,
    branch: str | None,
    everything: bool,
    fail: bool,
    **_: object,
) -> None:
    """List the commits at which benchmarks changed, and by how much.

    Every series of the same benchmark on the same machine is searched for steps: changes of level that its
    own noise does not explain, of at least the threshold. What rests on the last one or two commits alone is
    listed apart, to be measured again. Nothing is measured here: `assay bench` writes the records.

    The exit code is 0 whatever is listed, 25 where nothing could be judged, and with --fail 30 where there
    is a regression.

    \b
    Example:
      assay regressions
      assay regressions --since 30d --metric latency --all
      assay regressions --results postgresql://ci@db.example.org/assay --json --fail
    """
    from assay.results.history_report import commits_of, report_history

    output: Output = ctx.obj
    chosen = _filter(ctx)
    least = None if threshold is None else _percent(threshold)
    start = None if since is None else parse_since(since)
    commits = commits_of(repository, branch)
    with open_results(place) as store:
        report = report_history(store, chosen, commits, since=start, least_effect=least)
    _show(output, report, everything=everything)
    if not report.judged:
        raise NothingMeasuredError(
            f"None of {report.short} series has enough commits to be judged."
            if report.short
            else "There are no records to judge.",
            hint="A series needs records of 8 commits on one machine; `assay bench` writes them.",
        )
    if fail and report.regressions:
        count = len(report.regressions)
        raise PastRegressionError(f"There {'is 1 regression' if count == 1 else f'are {count} regressions'}.")


def _filter(ctx: click.Context) -> Filter:
    from assay.results.record import Metric
    from assay.results.series import Filter

    given = ctx.params
    for name in given["metrics"]:
        if name not in get_args(Metric):
            raise UnknownNameError("metric", name, get_args(Metric))
    names = ("models", "targets", "schemes", "profiles", "threads", "metrics", "machines", "engines")
    return Filter(**{name: given[name] for name in names})


def _percent(text: str) -> float:
    """A percentage such as ``3%`` as a fraction. Raises UsageError."""
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 < value < 10:
        raise UsageError(f"--threshold {text} is no percentage.", hint="Give one such as 3%.")
    return value


def _show(output: Output, report: HistoryReport, *, everything: bool) -> None:
    import msgspec

    from assay.results.history_report import shift_table

    if output.json:
        output.print_json(msgspec.to_builtins(report))
        return
    if report.regressions:
        output.print(shift_table(report.regressions, title="Regressions"))
    elif report.judged:
        output.print_line(f"No regression in {report.judged} series.")
    if everything and report.improvements:
        output.print(shift_table(report.improvements, title="Improvements"))
    if report.unconfirmed and not output.quiet:
        output.print(shift_table(report.unconfirmed, title="Perhaps: to be measured again"))
    if report.short:
        output.note(f"{report.short} series have too few commits to be judged.")
    for note in report.notes:
        output.warn(f"{note}.")
    for line in report.left_out[:_LEFT_OUT_SHOWN]:
        output.warn(f"left out: {line}")
    if len(report.left_out) > _LEFT_OUT_SHOWN:
        output.warn(f"left out: {len(report.left_out) - _LEFT_OUT_SHOWN} more; --json has all.")
