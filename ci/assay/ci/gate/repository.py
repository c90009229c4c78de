"""A git repository: what a ref names, whether the working tree is dirty, and trees to build from."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from assay.errors import GateInfrastructureError, UsageError

__all__ = ["WORKTREE", "Repository", "Revision", "find_repository"]

WORKTREE = "WORKTREE"
"""Stands where a ref may stand, and means the files of the working tree as they are."""

_TIMEOUT_SECONDS = 600.0
# What git sets for its hooks: it would point at another repository (`git rev-parse --local-env-vars`).
_OF_A_HOOK = frozenset(
    f"GIT_{name}"
    for name in ("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "PREFIX", "NAMESPACE")
)


@dataclass(frozen=True, kw_only=True)
class Revision:
    """What a ref names: ``commit`` in full, or the working tree upon it.

    ``dirty``: the working tree differs from ``commit``, and it is the working tree that is meant. ``time`` is
    the committer's, in ISO 8601, UTC.
    """

    ref: str
    commit: str
    worktree: bool = False
    dirty: bool = False
    time: str | None = None

    def __str__(self) -> str:
        short = self.commit[:10]
        if self.worktree:
            return f"the working tree, {short} with changes" if self.dirty else f"the working tree at {short}"
        return short if self.commit.startswith(self.ref) else f"{self.ref} ({short})"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A checkout at ``root``."""

    root: Path

    def changes(self) -> tuple[str, ...]:
        """Paths that differ from HEAD, and those that git neither tracks nor ignores."""
        lines = self._git("status", "--porcelain", "-z", "--no-renames").split("\0")
        return tuple(line[3:] for line in lines if line)

    def resolve(self, ref: str) -> Revision:
        """The revision that ``ref`` names. Raises UsageError, which suggests a ref that is near."""
        if ref == WORKTREE:
            head = self._git("rev-parse", "--verify", "HEAD^{commit}").strip()
            return Revision(
                ref=ref, commit=head, worktree=True, dirty=bool(self.changes()), time=self._time(head)
            )
        # A ref must not be taken for an option.
        done = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if done.returncode or not ref:
            raise self._no_such_ref(ref)
        commit = done.stdout.strip()
        return Revision(ref=ref, commit=commit, time=self._time(commit))

    def _time(self, commit: str) -> str:
        seconds = int(self._git("log", "-1", "--format=%ct", commit))
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def read(self, revision: Revision, path: str) -> bytes | None:
        """The content of the file at ``path`` from the root; None where the revision has none."""
        if revision.worktree:
            try:
                return (self.root / path).read_bytes()
            except OSError:
                return None
        done = self._run("show", "--end-of-options", f"{revision.commit}:{path}")
        return None if done.returncode else done.stdout.encode(errors="surrogateescape")

    def default_head(self) -> Revision:
        """The working tree where it is dirty, else HEAD."""
        return self.resolve(WORKTREE if self.changes() else "HEAD")

    def _no_such_ref(self, ref: str) -> UsageError:
        known = self._git("for-each-ref", "--format=%(refname:short)", "--count=2000").split()
        near = difflib.get_close_matches(ref, known, n=3, cutoff=0.6)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Fetch it: git fetch origin {ref}"
        if self._git("rev-parse", "--is-shallow-repository").strip() == "true":
            hint += " This clone is shallow: git fetch --unshallow brings its history."
        return UsageError(f"There is no commit {ref!r} in {self.root}.", hint=hint)

    @contextmanager
    def tree(self, revision: Revision, folder: Path) -> Iterator[Path]:
        """The files of ``revision`` in ``folder``, which must not exist and is removed in the end.

        Of a working tree it is a copy: what is measured does not change when somebody goes on editing.
        Raises GateInfrastructureError where git cannot write them.
        """
        if revision.worktree:
            self._copy(folder)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return
        self._git("worktree", "add", "--detach", "--force", str(folder), revision.commit)
        try:
            yield folder
        finally:
            self._run("worktree", "remove", "--force", "--force", str(folder))
            shutil.rmtree(folder, ignore_errors=True)
            self._run("worktree", "prune")

    def _copy(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        names = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for name in dict.fromkeys(filter(None, names)):
            source, target = self.root / name, folder / name
            if not source.is_symlink() and not source.exists():
                continue  # deleted, and not committed yet
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir() and not source.is_symlink():  # a submodule
                shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".git"))
            else:
                shutil.copy2(source, target, follow_symlinks=False)

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise GateInfrastructureError(f"git {arguments[0]} failed in {self.root}: {lines[-1]}")
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _git(self.root, *arguments)


def find_repository(start: Path | None = None) -> Repository:
    """The repository around ``start``, or the current folder. Raises UsageError where there is none."""
    start = (start or Path()).absolute()
    done = _git(start, "rev-parse", "--show-toplevel")
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no repository"])[-1].removeprefix("fatal: ")
        raise UsageError(
            f"{start} is in no git repository that can be read: {why}.",
            hint="Call assay gate in a checkout of the repository whose commits it shall compare.",
        )
    root = Path(done.stdout.rstrip("\n"))
    if _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").returncode:
        raise UsageError(f"The repository {root} has no commit yet.")
    return Repository(root=root)


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in _OF_A_HOOK}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        return subprocess.run(
            # What a hook of the repository does on a checkout is no part of a measurement.
            ["git", "-C", str(folder), "-c", "core.hooksPath=/dev/null", *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except OSError as error:
        raise GateInfrastructureError(
            f"git cannot be started: {error.strerror or error}.", hint="assay gate needs it; install it."
        ) from None
    except subprocess.TimeoutExpired:
        raise GateInfrastructureError(f"git {arguments[0]} took over {_TIMEOUT_SECONDS:g} s.") from None
