"""``assay dashboard``."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import output_options
from assay.cli.output import Output
from assay.cli.results_place import default_results, open_results, results_of_asv, results_option
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.results.commits import Commit
    from assay.results.dashboard.model import Build, Entry
    from assay.results.series import Series
    from assay.results.store import Store

__all__ = ["command"]

_PATH = click.Path(path_type=Path, exists=True)
_SHOWN = 5
_SSH = re.compile(r"^(?:ssh://)?(?:[\w.-]+@)(?P<host>[\w.-]+)[:/](?P<path>[\w./~-]+?)(?:\.git)?$")


@click.command("dashboard")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), help="Where to.  [default: results/site]"
)
@results_option
@click.option(
    "--artifacts",
    type=_PATH,
    multiple=True,
    help="Artifacts, or folders of such, whose verified errors and levels to show; may be repeated.  "
    "[default: those in the build cache that the records are of]",
)
@click.option(
    "--kernel-profile",
    "profiles",
    type=_PATH,
    multiple=True,
    metavar="FILE|FOLDER",
    help="Output of `assay profile --json`, for the roofline; may be repeated.  [default: results/profiles]",
)
@click.option(
    "--repository",
    metavar="URL",
    help="For links to commits: of the repository, or with {commit} in it.  [default: git's remote origin]",
)
@click.option(
    "--asv",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="What `asv publish` wrote, to copy beside.  [default: results/html, if it is there]",
)
@click.option("--title", default="Assay benchmarks", show_default=True, help="The name of the site.")
@output_options
@click.pass_obj
def command(
    output: Output,
    /,
    folder: Path | None,
    place: str | None,
    artifacts: tuple[Path, ...],
    profiles: tuple[Path, ...],
    repository: str | None,
    asv: Path | None,
    title: str,
) -> None:
    """Write a static site of all figures over commits.

    Its front page has a row for each model, target, scheme and number of threads: the newest figure, the
    ratio to each peer, the trend, the last change point, the roofline, size and quality; each row leads to a
    page with plots over commits. The folder opens from disk and works on any static host; it loads nothing
    from elsewhere. A site that is there is replaced.

    \b
    Example:
      assay bench --set default
      assay dashboard
      assay dashboard --results postgresql://host/assay -o public --repository https://example.org/us/models
    """
    from assay.benchmarks.provenance import find_checkout
    from assay.results.dashboard.asv_pages import why_left_out
    from assay.results.dashboard.collect import collect_entries
    from assay.results.dashboard.model import OURS
    from assay.results.dashboard.site import SiteOptions, commit_address, write_site
    from assay.results.history import find_shifts
    from assay.results.record import utc_now
    from assay.results.series import Filter

    checkout = find_checkout()
    results = (checkout.root if checkout else Path()) / "results"
    repository = repository or (_origin(checkout.root) if checkout else None)
    commit_address(repository)  # before anything takes time
    if asv is None and (results / "html" / "index.html").is_file():
        asv = results / "html"
    if asv is not None and (reason := why_left_out(asv)) is not None:
        output.warn(reason)
        asv = None
    if not profiles and (results / "profiles").is_dir():
        profiles = (results / "profiles",)
    folder = folder or results / "site"
    progress = output.progress()
    entries: list[Entry] = []
    commits: list[Commit] = []
    notes: list[str] = []
    with progress.step("read records"):
        store = _open(place, output)
    if store is not None:
        with store, progress.step("find change points and ratios to peers"):
            ours = store.series(Filter(engines=(OURS,)))
            commits = _commits(checkout.root if checkout else None, ours)
            history = find_shifts(ours, commits)
            builds = _builds(ours, artifacts, profiles)
            entries = collect_entries(
                store,
                builds=builds,
                shifts=history.shifts,
                commits=[commit.hash for commit in commits],
            )
            notes = [*(f"change points: {note}" for note in history.notes), *_left_out(store)]
    elif artifacts or profiles:
        from assay.results.dashboard.collect import entries_of_builds

        entries = entries_of_builds(_known(artifacts, profiles))
    options = SiteOptions(
        title=title,
        generated=utc_now(),
        repository=repository,
        asv=asv,
        subjects={commit.hash: commit.subject for commit in commits},
        notes=notes,
    )
    with progress.step("write the site"):
        written = write_site(folder, entries, options)
    if output.json:
        output.print_json({"path": str(folder), **written})
        return
    output.print_line(f"{folder / 'index.html'}")
    for note in notes:
        output.note(note)
    output.note(f"{written['rows']} rows of {written['configurations']} configurations")


def _open(place: str | None, output: Output) -> Store | None:
    """The store; None where nobody named one and nothing was measured yet."""
    if place is None and not (default_results().is_dir() or results_of_asv().is_dir()):
        output.note(f"There are no records in {default_results()}: the site says how to make some.")
        return None
    return open_results(place)


def _commits(root: Path | None, series: Sequence[Series]) -> list[Commit]:
    """The history of the checkout; nothing where it is not that of the records."""
    from assay.results.commits import read_commits

    if root is None:
        return []
    try:
        commits = read_commits(root)
    except UsageError:
        return []
    measured = {point.commit for each in series for point in each.points}
    return commits if any(commit.hash in measured for commit in commits) else []


def _builds(series: Sequence[Series], artifacts: tuple[Path, ...], profiles: tuple[Path, ...]) -> list[Build]:
    from assay.cli.dashboard_builds import cached_builds, with_rooflines
    from assay.compile.cache import default_cache_folder

    if artifacts:
        return _known(artifacts, profiles)
    newest = {each.points[-1].artifact for each in series}
    return with_rooflines(cached_builds(default_cache_folder() / "artifacts", newest), profiles)


def _known(artifacts: tuple[Path, ...], profiles: tuple[Path, ...]) -> list[Build]:
    from assay.cli.dashboard_builds import artifact_builds, with_rooflines

    return with_rooflines(artifact_builds(artifacts), profiles)


def _left_out(store: Store) -> list[str]:
    """What the store left out is told, and not only missed."""
    exclusions = store.exclusions
    told = [f"left out: {exclusion}" for exclusion in exclusions[:_SHOWN]]
    return [*told, f"left out: {len(exclusions) - _SHOWN} more"] if len(exclusions) > _SHOWN else told


def _origin(root: Path) -> str | None:
    """The address of git's remote ``origin`` for a browser; None where it has none."""
    address = _git(root, "remote", "get-url", "origin").strip()
    if address.startswith(("https://", "http://")):
        # Without a name and a password, which addresses of CI services carry.
        return re.sub(r"^(https?://)[^/@]*@", r"\1", address).removesuffix(".git")
    found = _SSH.match(address)
    return f"https://{found['host']}/{found['path']}" if found else None


def _git(root: Path, *arguments: str) -> str:
    """What git prints; nothing where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
