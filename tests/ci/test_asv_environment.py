"""The environment type for asv: what it runs, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from asv.config import Config
from asv.environment import EnvironmentUnavailable
from asv.util import ProcessError

from assay.ci.asv_environment import Overlay

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def checkout(folder: Path, value: int, dependencies: list[str]) -> Path:
    """A commit of a project like this one, with one module."""
    (folder / "runtime" / "assay" / "runtime").mkdir(parents=True)
    (folder / "runtime" / "assay" / "planted.py").write_text(f"VALUE = {value}\n")
    (folder / "pyproject.toml").write_text(f'[project]\nname = "assay"\ndependencies = {dependencies}\n')
    return folder


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    return Config.from_json({"repo": ".", "project": "assay", "env_dir": str(tmp_path / "env")})


@pytest.fixture
def environment(configuration: Config) -> Overlay:
    return Overlay(configuration, PYTHON, {}, {})


def test_another_python_or_more_packages_are_refused(configuration: Config) -> None:
    assert Overlay.matches(PYTHON)
    assert not Overlay.matches("2.7")
    with pytest.raises(EnvironmentUnavailable, match=r"not 2\.7"):
        Overlay(configuration, "2.7", {}, {})
    with pytest.raises(EnvironmentUnavailable, match="six"):
        Overlay(configuration, PYTHON, {"six": ""}, {})


def test_commits_take_turns_before_the_shared_packages(environment: Overlay, tmp_path: Path) -> None:
    assert not environment.check_presence()
    environment.create()
    assert environment.check_presence()
    code = "import assay, numpy, assay.planted; print(assay.planted.VALUE, list(assay.__path__))"
    for value in (7, 8):
        project = checkout(tmp_path / f"project{value}", value, ["numpy"])
        environment._install_project(None, "0" * 40, str(project))
        # Nothing of the checkout that runs these tests is in the namespace.
        assert environment.run(["-c", code]).split() == [str(value), f"['{project / 'runtime' / 'assay'}']"]
        environment._uninstall_project()
        assert environment.installed_commit_hash is None


def test_a_commit_that_cannot_be_measured_fails_to_build(environment: Overlay, tmp_path: Path) -> None:
    project = checkout(tmp_path / "project", 1, ["nothing-of-this-name"])
    environment.create()
    with pytest.raises(ProcessError) as raised:
        environment._install_project(None, "0" * 40, str(project))
    assert "nothing-of-this-name" in raised.value.stderr
    with pytest.raises(ProcessError) as raised:
        environment._install_project(None, "0" * 40, str(tmp_path))
    assert "none of Assay" in raised.value.stderr
