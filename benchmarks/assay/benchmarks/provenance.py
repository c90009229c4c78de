"""With what a measurement was made: versions of the packages, and the commit of this checkout."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Checkout", "find_checkout", "versions"]

_PACKAGES = ("assay", "apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "onnxruntime", "torch")


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A git checkout of Assay; ``dirty`` when files that git tracks differ from the commit."""

    root: Path
    commit: str
    dirty: bool


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
    """The checkout that Assay runs from; None when it is installed elsewhere, or without git."""
    root = (start or Path(__file__)).resolve()
    root = next((folder for folder in root.parents if (folder / "pyproject.toml").is_file()), root)
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or status is None:
        return None
    return Checkout(root=root, commit=commit, dirty=bool(status))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
