"""With what a measurement was made: versions of the packages, and the commit of the repository."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["Checkout", "checkout_of", "find_checkout", "versions"]

_PACKAGES = ("assay", "apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "onnxruntime", "torch")


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A git checkout; ``dirty`` when files that git tracks differ from the commit.

    ``time`` is the committer's, ISO 8601 in UTC; ``branch`` is None on a detached head.
    """

    root: Path
    commit: str
    dirty: bool
    time: str | None = None
    branch: str | None = None


def versions() -> dict[str, str]:
    """Versions of Python and of those packages that are installed and matter to figures."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def find_checkout(start: Path | None = None) -> Checkout | None:
    """The checkout that Assay runs from, or else the repository that the current folder is in.

    With ``start`` that of this file or folder alone. None where there is none, or no git.
    """
    if start is not None:
        return _checkout(start)
    return _checkout(Path(__file__)) or checkout_of(Path.cwd())


def _checkout(start: Path) -> Checkout | None:
    root = start.resolve()
    root = next((folder for folder in root.parents if (folder / "pyproject.toml").is_file()), root)
    return checkout_of(root) if (root / ".git").exists() else None


def checkout_of(folder: Path) -> Checkout | None:
    """The git repository that ``folder`` is in, at its commit; None where there is none, or no commit."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    head = _git(folder, "log", "-1", "--format=%H %ct")
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if not root or not head or status is None:
        return None
    commit, seconds = head.split()
    return Checkout(
        root=Path(root),
        commit=commit,
        dirty=bool(status),
        time=datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        branch=_git(folder, "symbolic-ref", "--quiet", "--short", "HEAD") or None,
    )


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
