"""``assay dashboard``."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import output_options
from assay.cli.output import Output

if TYPE_CHECKING:
    from assay.results.dashboard.model import Build
    from assay.results.store import Store

__all__ = ["command"]

_PATH = click.Path(path_type=Path, exists=True)
_SHOWN = 5
_SSH = re.compile(r"^(?:ssh://)?(?:[\w.-]+@)(?P<host>[\w.-]+)[:/](?P<path>[\w./~-]+?)(?:\.git)?$")


@click.command("dashboard")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), help="Where to.  [default: results/site]"
)
@click.option(
    "--results",
    "place",
    metavar="FOLDER|URL",
    help="Folder of the records, or the URL of a database of them.  [default: results/runs]",
)
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
    from assay.results.dashboard.collect import collect_entries
    from assay.results.dashboard.site import SiteOptions, commit_address, write_site
    from assay.results.record import utc_now

    checkout = find_checkout()
    results = (checkout.root if checkout else Path()) / "results"
    repository = repository or (_origin(checkout.root) if checkout else None)
    commit_address(repository)  # before anything takes time
    if asv is None and (results / "html" / "index.html").is_file():
        asv = results / "html"
    if not profiles and (results / "profiles").is_dir():
        profiles = (results / "profiles",)
    folder = folder or results / "site"
    progress = output.progress()
    entries = []
    with progress.step("read records"):
        store = _open(place, results / "runs", output)
    if store is not None:
        with store, progress.step("find change points and ratios to peers"):
            builds = _builds(store, artifacts, profiles)
            entries = collect_entries(store, builds=builds)
            _warn(store, output)
    elif artifacts or profiles:
        from assay.results.dashboard.collect import entries_of_builds

        entries = entries_of_builds(_known(artifacts, profiles))
    options = SiteOptions(
        title=title,
        generated=utc_now(),
        repository=repository,
        asv=asv,
        subjects=_subjects(checkout.root) if checkout else {},
    )
    with progress.step("write the site"):
        written = write_site(folder, entries, options)
    if output.json:
        output.print_json({"path": str(folder), **written})
        return
    output.print_line(f"{folder / 'index.html'}")
    output.note(f"{written['rows']} rows of {written['configurations']} configurations")


def _open(place: str | None, default: Path, output: Output) -> Store | None:
    """The store; None where nobody named one and nothing was measured yet."""
    from assay.results.store import open_store

    if place is None and not default.is_dir():
        output.note(f"There are no records in {default}: the site says how to make some.")
        return None
    return open_store(place or default)


def _builds(store: Store, artifacts: tuple[Path, ...], profiles: tuple[Path, ...]) -> list[Build]:
    from assay.cli.dashboard_builds import cached_builds, with_rooflines
    from assay.compile.cache import default_cache_folder
    from assay.results.dashboard.model import OURS
    from assay.results.series import Filter

    if artifacts:
        return _known(artifacts, profiles)
    newest = {series.points[-1].artifact for series in store.series(Filter(engines=(OURS,)))}
    return with_rooflines(cached_builds(default_cache_folder() / "artifacts", newest), profiles)


def _known(artifacts: tuple[Path, ...], profiles: tuple[Path, ...]) -> list[Build]:
    from assay.cli.dashboard_builds import artifact_builds, with_rooflines

    return with_rooflines(artifact_builds(artifacts), profiles)


def _warn(store: Store, output: Output) -> None:
    """What the store left out is told, and not only missed."""
    exclusions = store.exclusions
    for exclusion in exclusions[:_SHOWN]:
        output.warn(f"left out: {exclusion}")
    if len(exclusions) > _SHOWN:
        output.warn(f"left out: {len(exclusions) - _SHOWN} more")


def _origin(root: Path) -> str | None:
    """The address of git's remote ``origin`` for a browser; None where it has none."""
    address = _git(root, "remote", "get-url", "origin").strip()
    if address.startswith(("https://", "http://")):
        # Without a name and a password, which addresses of CI services carry.
        return re.sub(r"^(https?://)[^/@]*@", r"\1", address).removesuffix(".git")
    found = _SSH.match(address)
    return f"https://{found['host']}/{found['path']}" if found else None


def _subjects(root: Path) -> dict[str, str]:
    """The first lines of messages by commit, of all that the repository has."""
    lines = _git(root, "log", "--all", "--format=%H %s").splitlines()
    return {commit: subject for commit, _, subject in (line.partition(" ") for line in lines)}


def _git(root: Path, *arguments: str) -> str:
    """What git prints; nothing where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
