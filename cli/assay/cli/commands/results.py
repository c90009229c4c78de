"""``assay results``."""

from __future__ import annotations

from pathlib import Path

import click

from assay.cli.options import output_options
from assay.cli.output import Output
from assay.cli.results_place import default_results, results_of_asv
from assay.errors import RecordError, UsageError

__all__ = ["command"]


@click.group("results")
def command() -> None:
    """Bring records of measurements into a team's database.

    \b
    Example:
      assay results push postgresql://ci@db.example.org/assay
    """


@command.command("push")
@click.argument("url")
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[FILE|FOLDER ...]")
@output_options
@click.pass_obj
def push(output: Output, url: str, paths: tuple[Path, ...]) -> None:
    """Add the records of files, or of a folder's files, to the database at URL.

    Records that are there already change nothing, so that a fleet may push as often as it likes. Without
    files, those that `assay bench` and asv wrote; folders of asv's results may be named too. A password is
    best left to PGPASSWORD or ~/.pgpass.

    Files that cannot be read, and records that mean nothing, are named and left out; the exit code is then
    15, after the others were added.

    \b
    Example:
      assay results push postgresql://ci@db.example.org/assay
      assay results push sqlite:///team.sqlite results/runs
    """
    from assay.results.store import is_url, open_store

    if not is_url(url):
        raise UsageError(f"{url} is no URL of a database.", hint="postgresql://USER@HOST/DATABASE is one.")
    with open_store(url) as store:
        added = store.add(paths or _default_paths())
    if output.json:
        left_out = [str(exclusion) for exclusion in added.exclusions]
        output.print_json({"new": added.new, "known": added.known, "left_out": left_out})
    else:
        output.print_line(f"{added.new} records added, {added.known} were there already")
    if added.exclusions:
        for exclusion in added.exclusions:
            output.warn(f"left out: {exclusion}")
        raise RecordError(f"{len(added.exclusions)} files or records were left out.")


def _default_paths() -> list[Path]:
    """What was measured here; the folder of records where nothing was, so that it is named."""
    places = [default_results(), results_of_asv()]
    return [place for place in places if place.is_dir()] or places[:1]
