"""Writes the site: pages from templates, data in scripts, libraries beside them; nothing from elsewhere."""

from __future__ import annotations

import importlib.resources
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from assay.errors import MissingDependencyError, StorageError, UsageError
from assay.results.dashboard.asv_pages import copy_pages
from assay.results.dashboard.model import Entry
from assay.results.dashboard.payload import as_script, detail, identifier, index

__all__ = ["MARKER", "PAGES", "SiteOptions", "commit_address", "write_site"]

MARKER = "assay-dashboard"
"""A file of this name says that a folder is a site of ours, which may be replaced."""

PAGES = ("index.html", "series.html")
_ASV = "asv"


@dataclass(frozen=True, kw_only=True)
class SiteOptions:
    """``title`` of the pages; ``generated``: when, ISO 8601 in UTC.

    ``repository``: the address of a repository, or an address with ``{commit}`` in it, for links to commits.
    ``asv``: a folder that ``asv publish`` wrote, copied into the site. ``subjects``: the first lines of the
    messages of commits. ``notes``: what whoever reads the figures must know, such as what was left out.
    """

    title: str
    generated: str
    repository: str | None = None
    asv: Path | None = None
    subjects: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def commit_address(repository: str | None) -> str | None:
    """The address of a commit, with ``{commit}`` in its place.

    Raises UsageError where ``repository`` is no address of http or https: no other may stand in a link.
    """
    if repository is None:
        return None
    parts = urlsplit(repository)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f"{repository} is not the address of a repository.",
            hint="Give one that begins with https://, as of its page in a browser.",
        )
    return repository if "{commit}" in repository else f"{repository.removesuffix('/')}/commit/{{commit}}"


def write_site(folder: Path, entries: Sequence[Entry], options: SiteOptions) -> dict[str, int]:
    """Write the site to ``folder``, whole or not at all, and give what is in it: rows, configurations, bytes.

    A folder that is there is replaced if it is a site of ours, or empty. Raises UsageError for another, for a
    repository that is no address, and for pages of asv that ``asv_pages.why_left_out`` has a reason for,
    StorageError when it cannot be written, MissingDependencyError without jinja2.
    """
    address = commit_address(options.repository)
    if options.asv is not None and not (options.asv / "index.html").is_file():
        raise UsageError(f"{options.asv} has no index.html.", hint="Run: asv publish")
    _refuse_foreign(folder)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        temporary.mkdir(parents=True)
        found = _write(temporary, entries, options, address)
        _swap(temporary, folder)
    except OSError as error:
        raise StorageError(
            f"The dashboard cannot be written to {folder}: {error.strerror or error}.",
            hint="Free some room, or choose another folder with -o.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def _write(
    folder: Path, entries: Sequence[Entry], options: SiteOptions, address: str | None
) -> dict[str, int]:
    static = importlib.resources.files("assay.results.dashboard") / "static"
    with importlib.resources.as_file(static) as source:
        shutil.copytree(source, folder / "static", ignore=shutil.ignore_patterns("__pycache__"))
    data = folder / "data"
    data.mkdir()
    front = index(entries, options.subjects)
    front |= {"generated": options.generated, "commit_address": address, "notes": list(options.notes)}
    (data / "index.js").write_bytes(as_script("index", front))
    for entry in entries:
        name = identifier(entry.configuration)
        content = detail(entry, options.subjects) | {"commit_address": address}
        (data / f"{name}.js").write_bytes(as_script(name, content))
    if options.asv is not None:
        copy_pages(options.asv, folder / _ASV)
    for name, page in _pages(options).items():
        (folder / name).write_text(page, encoding="utf-8")
    (folder / MARKER).write_text("A site written by `assay dashboard`, which replaces this folder.\n")
    return {
        "rows": len(front["rows"]),
        "configurations": len(entries),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }


def _pages(options: SiteOptions) -> Mapping[str, str]:
    try:
        import jinja2
    except ImportError:
        raise MissingDependencyError("jinja2", "dashboard") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("assay.results.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    asv = f"{_ASV}/index.html" if options.asv is not None else None
    values = {"title": options.title, "generated": options.generated, "asv": asv}
    return {name: environment.get_template(f"{name}.j2").render(values, page=name) for name in PAGES}


def _refuse_foreign(folder: Path) -> None:
    """Nobody's files are deleted: only a site of ours, or an empty folder, is replaced."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is not a folder.", hint="Choose another folder with -o.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(
            f"{folder} holds files that are not of a dashboard.", hint="Choose another folder with -o."
        )


def _swap(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``, and remove the old one."""
    old = folder.with_name(f"{new.name}.old")
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
