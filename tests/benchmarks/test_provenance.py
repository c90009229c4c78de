from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

from assay.benchmarks import provenance
from assay.benchmarks.provenance import checkout_of, find_checkout, versions


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


def make_repository(folder: Path) -> None:
    git(folder, "init", "-q", "--initial-branch=trunk")
    (folder / "model.onnx").write_text("1")
    git(folder, "add", ".")
    subprocess.run(
        [
            "git",
            "-C",
            str(folder),
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@example.org",
            "commit",
            "-q",
            "-mA",
        ],
        check=True,
        env={**os.environ, "GIT_COMMITTER_DATE": "2026-02-03T04:05:06+02:00"},
    )


def test_the_branch_and_the_committers_time_in_utc(tmp_path):
    make_repository(tmp_path)
    inside = tmp_path / "models"
    inside.mkdir()
    found = checkout_of(inside)
    assert found is not None
    assert found.root == tmp_path.resolve()
    assert (found.branch, found.time) == ("trunk", "2026-02-03T02:05:06Z")
    git(tmp_path, "checkout", "-q", "--detach")
    detached = checkout_of(tmp_path)
    assert detached is not None
    assert detached.branch is None


def test_without_a_checkout_of_assay_the_current_folders_repository_counts(tmp_path, monkeypatch):
    make_repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "__file__", "/site-packages/assay/benchmarks/provenance.py")
    found = find_checkout()
    assert found is not None
    assert found.root == tmp_path.resolve()


def test_a_repository_without_commits_is_none(tmp_path):
    git(tmp_path, "init", "-q")
    assert checkout_of(tmp_path) is None
    assert checkout_of(tmp_path / "none") is None


def test_no_checkout_outside_of_git(tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    assert find_checkout(tmp_path / "module.py") is None


def test_versions_are_those_installed():
    found = versions()
    assert found["numpy"] == version("numpy")
    assert "python" in found
