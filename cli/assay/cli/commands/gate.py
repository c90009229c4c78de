"""``assay gate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import cache_option, output_options, threads_type
from assay.cli.output import Output

if TYPE_CHECKING:
    from assay.ci.gate.report import GateReport
    from assay.ci.gate.repository import Repository, Revision
    from assay.ci.gate.run import GatePlan

__all__ = ["command"]


@click.command("gate")
@click.option("--base", metavar="REF", help="The commit to compare with.  [default: that of assay-gate.toml]")
@click.option(
    "--head",
    metavar="REF",
    help="The commit to judge; WORKTREE means the files of the working tree as they are.  "
    "[default: WORKTREE where something is not committed, else HEAD]",
)
@click.option(
    "--models",
    multiple=True,
    metavar="MODEL|PATH[,...]",
    help="Names, or paths in the repository; may be repeated.  [default: those of assay-gate.toml]",
)
@click.option("--threshold", metavar="PERCENT", help="The smallest slowdown that matters.  [default: 3%]")
@click.option(
    "--confidence",
    metavar="PERCENT",
    help="How sure to be that a run on identical code finds no change in anything.  [default: 99%]",
)
@click.option(
    "--budget", type=click.FloatRange(min=0), help="Seconds for rounds of process runs.  [default: 600]"
)
@click.option("--threads", type=threads_type, multiple=True, help="Threads; may be repeated.  [default: 1]")
@click.option("--target", help="What to compile for.  [default: native]")
@click.option("--scheme", help="How weights are stored.  [default: that of `assay build`]")
@click.option("--profile", help="How hard the build works.  [default: release]")
@click.option("--size", "sizes", multiple=True, metavar="DIM=N", help="Size of a symbolic dimension.")
@click.option("--seed", default=0, show_default=True, help="Of the inputs and of the order of the runs.")
@click.option(
    "--instructions/--no-instructions",
    default=True,
    show_default=True,
    help="Count instructions, by perf or valgrind where there is one.",
)
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdicts as JUnit XML."
)
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a summary for a pull request, short enough for a comment.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what --json prints to a file too.",
)
@click.option(
    "--results",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write what was measured of both commits as records to this folder, such as results/runs, for "
    "`assay regressions` and `assay dashboard`.  [default: no records]",
)
@cache_option
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    junit: Path | None,
    markdown: Path | None,
    report: Path | None,
    folder: Path | None,
    **_: object,
) -> None:
    """Compare two commits, and say what got slower, larger, less exact, or broke.

    On this machine, both commits are checked out beside each other, build their own artifacts with their
    own code, and run them in turn in fresh processes, until the answer is clear or the budget is spent. In
    a repository other than Assay's, the models of both commits are built by the Assay that is installed.
    Language models are measured in two phases: a prompt of 64 tokens, and a token after it.

    \b
    Example:
      assay gate --base origin/main --models silero-vad,light-squeezenet
      assay gate --base v1.2 --head HEAD --models models/ranker.onnx --threshold 5%
    """
    from assay.ci.gate.junit import write_junit
    from assay.ci.gate.markdown import write_markdown
    from assay.ci.gate.run import run_gate
    from assay.ci.json_file import write_json

    output: Output = ctx.obj
    found = run_gate(_plan(ctx), output.progress(animated=False))
    _show(output, found)
    for path, write in ((junit, write_junit), (markdown, write_markdown), (report, write_json)):
        if path is not None:
            write(path, found)
    if folder is not None:
        _save(output, found, folder)
    ctx.exit(found.exit_code)


def _save(output: Output, report: GateReport, folder: Path) -> None:
    from assay.ci.gate.records import gate_records
    from assay.results.record import write_records

    records = gate_records(report)
    if records:
        output.note(f"records: {write_records(folder, records)}")


def _show(output: Output, report: GateReport) -> None:
    import msgspec

    from assay.cli.gate_table import gate_tables

    if output.json:
        output.print_json(msgspec.to_builtins(report))
    else:
        output.print(*gate_tables(report, everything=output.verbosity > 0))


def _plan(ctx: click.Context) -> GatePlan:
    """The options, and behind them what the head's assay-gate.toml says."""
    from assay.ci.gate.builds import BuildOptions
    from assay.ci.gate.decision import Settings
    from assay.ci.gate.repository import find_repository
    from assay.ci.gate.run import GatePlan
    from assay.ci.gate.settings_file import FILE, parse_fraction, parse_gate_file
    from assay.errors import UsageError

    given = ctx.params
    repository = find_repository()
    head = repository.resolve(given["head"]) if given["head"] else repository.default_head()
    file = parse_gate_file(repository.read(head, FILE))
    base = given["base"] or file.base
    if base is None:
        raise UsageError("There is nothing to compare with.", hint="Give --base, such as --base origin/main.")
    models = [name for text in given["models"] for name in text.split(",") if name] or file.models
    threshold, confidence = given["threshold"] or file.threshold, given["confidence"] or file.confidence
    _tell(ctx.obj, repository, head, explicit=given["head"] is not None)
    return GatePlan(
        repository=repository,
        base=repository.resolve(base),
        head=head,
        models=tuple(dict.fromkeys(models)),
        threads=tuple(dict.fromkeys(given["threads"] or file.threads or (1,))),
        build=BuildOptions(
            target=given["target"] or file.target or "native",
            scheme=given["scheme"] or file.scheme,
            profile=given["profile"] or file.profile or "release",
        ),
        sizes=given["sizes"] or file.size,
        settings=Settings(
            threshold=parse_fraction(threshold or "3%"), confidence=parse_fraction(confidence or "99%")
        ),
        budget=next((each for each in (given["budget"], file.budget) if each is not None), 600.0),
        seed=given["seed"],
        cache=given["cache"],
        accepted=file.accept,
        instructions=given["instructions"],
    )


def _tell(output: Output, repository: Repository, head: Revision, *, explicit: bool) -> None:
    """What is measured of a working tree that is dirty."""
    changes = repository.changes()
    if not changes:
        return
    count = (
        "1 file of the working tree is"
        if len(changes) == 1
        else f"{len(changes)} files of the working tree are"
    )
    if head.worktree and not explicit:
        output.note(f"{count} not committed: the working tree is measured.")
    elif not head.worktree:
        output.warn(f"{count} not committed, and not measured: the head is {head}.")
