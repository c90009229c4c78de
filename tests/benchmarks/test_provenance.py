from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from assay.benchmarks.provenance import find_checkout, versions


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_commit_and_whether_files_differ_from_it(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "First.")
    module = tmp_path / "package" / "module.py"
    found = find_checkout(module)
    assert found is not None
    assert found.root == tmp_path.resolve()
    assert found.commit == git(tmp_path, "rev-parse", "HEAD")
    assert not found.dirty
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    changed = find_checkout(module)
    assert changed is not None
    assert changed.dirty


def test_no_checkout_outside_of_git(tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    assert find_checkout(tmp_path / "module.py") is None


def test_versions_are_those_installed():
    found = versions()
    assert found["numpy"] == version("numpy")
    assert "python" in found
