"""``assay farm``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import cache_option, output_options
from assay.cli.output import Output
from assay.errors import FarmJobError, UsageError

if TYPE_CHECKING:
    from assay.ci.farm.coordinator import Finished
    from assay.ci.farm.jobs import Job

__all__ = ["command"]


@click.group("farm")
def command() -> None:
    """Build, tune and measure a matrix of models, on one machine or on many.

    \b
    Example:
      assay farm plan nightly.toml
      assay farm run nightly.toml --workers 2
      assay farm run nightly.toml --scheduler tcp://192.168.1.2:8786
    """


specification = click.argument("spec", metavar="SPEC.toml", type=click.Path(dir_okay=False, path_type=Path))


@command.command("plan")
@specification
@output_options
@click.pass_obj
def plan(output: Output, spec: Path) -> None:
    """List the jobs of a specification; nothing is run.

    \b
    Example:
      assay farm plan nightly.toml
    """
    from assay.ci.farm.jobs import jobs_of
    from assay.ci.farm.spec import read_spec

    jobs = jobs_of(read_spec(spec))
    if output.json:
        output.print_json([_job(job) for job in jobs])
        return
    for job in jobs:
        output.print_line(job.key if output.quiet else f"{job.key}  {job.label}")


@command.command("run")
@specification
@click.option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster, such as tcp://192.168.1.2:8786.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Without --scheduler: processes here.  [default: 1]"
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results are kept, by the key of their job, so that a run goes on.  [default: farm/NAME]",
)
@cache_option
@output_options
@click.pass_obj
def run(
    output: Output,
    spec: Path,
    scheduler: str | None,
    workers: int | None,
    folder: Path | None,
    cache: Path | None,
) -> None:
    """Run the jobs of a specification, and keep what they give: artifacts, records, tuning records.

    A job that fails is tried again elsewhere, a bounded number of times. Every result is checked: its
    digests, its numbers, that it is of the model and target that were asked for; a worker that gives what
    cannot be gets no more jobs. What was done is kept, and the same command goes on from there.

    Jobs that time something go to workers with the resource `timing`, one at a time on a machine, alone, and
    only while others leave it idle.

    \b
    Example:
      assay farm run nightly.toml --workers 2
      dask worker tcp://192.168.1.2:8786 --nworkers 1 --nthreads 1 --resources timing=1
    """
    from assay.ci.farm.cluster import connected, local_cluster
    from assay.ci.farm.coordinator import Farm
    from assay.ci.farm.jobs import jobs_of
    from assay.ci.farm.journal import opened_journal
    from assay.ci.farm.spec import read_spec

    if scheduler is not None and workers is not None:
        raise UsageError("--workers is for a cluster of this machine, --scheduler for one that is there.")
    wanted = read_spec(spec)
    jobs = jobs_of(wanted)
    folder = folder or Path("farm") / spec.stem
    cluster: AbstractContextManager[Any]
    cluster = connected(scheduler) if scheduler is not None else local_cluster(workers or 1)
    with opened_journal(folder) as journal, cluster as client:
        farm = Farm(
            client=client, journal=journal, folder=folder, settings=wanted.farm, tell=output.note,
            cache=cache.absolute() if cache else None,
        )  # fmt: skip
        finished = farm.run(jobs)
    _show(output, finished, folder)


def _show(output: Output, finished: list[Finished], folder: Path) -> None:
    """The table of all jobs. Raises FarmJobError where some failed."""
    if output.json:
        output.print_json([_job(each.job) | _end(each) for each in finished])
    elif output.quiet:
        output.print_line(str(folder))
    else:
        output.print(_table(finished))
        output.note(f"results: {folder}")
    failed = [each for each in finished if each.status in ("failed", "skipped")]
    if failed:
        first = failed[0]
        raise FarmJobError(
            f"{len(failed)} of {len(finished)} jobs failed; the first: {first.job.label}: {first.message}",
            hint="The others are kept; the same command tries those that failed again.",
        )


def _job(job: Job) -> dict[str, Any]:
    return {
        "key": job.key,
        "kind": job.kind,
        "model": job.model,
        "target": job.target,
        "scheme": job.scheme,
        "profile": job.profile,
        "threads": job.threads,
        "device": job.device,
    }


def _end(each: Finished) -> dict[str, Any]:
    return {
        "status": each.status,
        "message": each.message,
        "attempts": each.attempts,
        "seconds": each.seconds,
        "host": each.host,
    }


def _table(finished: list[Finished]) -> Any:
    from rich.table import Table

    table = Table()
    for heading in ("job", "ended", "attempts", "time", "on"):
        right = heading in ("attempts", "time")
        table.add_column(heading, overflow="fold", justify="right" if right else "left")
    for each in finished:
        status = f"{each.status}: {each.message}" if each.message else each.status
        seconds = f"{each.seconds:.1f} s" if each.seconds else ""
        table.add_row(each.job.label, status, str(each.attempts or ""), seconds, each.host)
    return table
