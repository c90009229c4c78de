"""The order of a repository's commits: what histories go by, since clocks jump and branches are rebased."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from assay.errors import UsageError

__all__ = ["Commit", "read_commits"]

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit: its full hash, the committer's time, and the first line of its message."""

    hash: str
    time: datetime
    subject: str


def read_commits(repository: Path, ref: str = "HEAD") -> list[Commit]:
    """``ref`` and its ancestors, oldest first, parents before children.

    Raises UsageError where there is no repository, no such ref, or no git.
    """
    if ref.startswith("-"):
        raise UsageError(f"{ref!r} is no commit.")
    text = _git(repository, ["log", "--topo-order", "--reverse", "-z", "--format=%H %ct %s", ref, "--"], ref)
    commits = []
    for line in filter(None, text.split("\0")):
        name, seconds, subject = line.split(" ", 2)
        commits.append(Commit(hash=name, time=datetime.fromtimestamp(int(seconds), UTC), subject=subject))
    return commits


def _git(repository: Path, arguments: Sequence[str], ref: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"The commits of {repository} cannot be read: {error}.") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["git failed"])[-1].removeprefix("fatal: ")
        raise UsageError(f"The commits of {ref} in {repository} cannot be read: {reason}.")
    return done.stdout
