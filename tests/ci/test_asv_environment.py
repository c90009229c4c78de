"""The environment type for asv: which folders it puts together, and what it refuses."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest
from asv.config import Config
from asv.environment import EnvironmentUnavailable
from asv.util import ProcessError

from assay.ci.asv_environment import Overlay, shared_folders, source_folders, unmet_requirements

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def checkout(folder: Path, dependencies: list[str], extra: list[str] | None = None) -> Path:
    """A project with one folder of sources."""
    (folder / "code" / "assay").mkdir(parents=True)
    (folder / "code" / "assay" / "planted.py").write_text("VALUE = 7\n")
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "assay"\ndependencies = {dependencies}\n'
        f"[project.optional-dependencies]\ncompile = {extra or []}\n"
        '[tool.hatch.build]\ndev-mode-dirs = ["code", "missing"]\n'
    )
    return folder


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Overlay:
    monkeypatch.chdir(tmp_path)
    configuration = Config.from_json({"repo": ".", "project": "assay", "env_dir": str(tmp_path / "env")})
    return Overlay(configuration, PYTHON, {}, {})


def test_the_sources_of_this_project_are_found() -> None:
    assert [path.relative_to(ROOT).as_posix() for path in source_folders(ROOT)] == [
        "compile",
        "runtime",
        "models",
        "benchmarks",
        "results",
        "ci",
        "cli",
    ]


def test_what_this_project_requires_is_installed_here() -> None:
    assert unmet_requirements(ROOT) == []


def test_shared_folders_hold_installed_packages_and_no_sources() -> None:
    folders = shared_folders()
    assert any((folder / "numpy").is_dir() for folder in folders)
    assert not set(folders) & set(source_folders(ROOT))


def test_requirements_that_are_not_met_are_named(tmp_path: Path) -> None:
    numpy = importlib.metadata.version("numpy")
    project = checkout(
        tmp_path,
        ["numpy>=1", "nothing-of-this-name>=2", "absent>=1; sys_platform == 'nowhere'"],
        ["numpy>=999", "assay[more]"],
    )
    assert unmet_requirements(project) == [
        "nothing-of-this-name>=2 (not installed)",
        f"numpy>=999 ({numpy} is installed)",
    ]


@pytest.mark.parametrize("content", ["", "[tool.hatch.build]\ndev-mode-dirs = ['absent']\n", "= ="])
def test_a_checkout_without_sources_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError, match=r"pyproject\.toml"):
        source_folders(tmp_path)
    (tmp_path / "pyproject.toml").write_text(content)
    with pytest.raises(ValueError, match=r"pyproject\.toml"):
        source_folders(tmp_path)


def test_another_python_or_more_packages_are_refused(tmp_path: Path) -> None:
    configuration = Config.from_json({"repo": ".", "project": "assay", "env_dir": str(tmp_path)})
    assert Overlay.matches(PYTHON)
    assert not Overlay.matches("2.7")
    with pytest.raises(EnvironmentUnavailable, match=r"not 2\.7"):
        Overlay(configuration, "2.7", {}, {})
    with pytest.raises(EnvironmentUnavailable, match="six"):
        Overlay(configuration, PYTHON, {"six": ""}, {})


def test_an_installed_commit_comes_before_shared_packages(environment: Overlay, tmp_path: Path) -> None:
    project = checkout(tmp_path / "project", ["numpy"])
    assert not environment.check_presence()
    environment.create()
    assert environment.check_presence()
    environment._install_project(None, "0" * 40, str(project))
    code = "import assay, numpy, assay.planted; print(assay.planted.VALUE, list(assay.__path__))"
    out = environment.run(["-c", code])
    assert out.split() == ["7", f"['{project / 'code' / 'assay'}']"]
    environment._uninstall_project()
    with pytest.raises(ProcessError):
        environment.run(["-c", "import assay.planted"], display_error=False)


def test_a_commit_that_needs_other_packages_fails_to_build(environment: Overlay, tmp_path: Path) -> None:
    project = checkout(tmp_path / "project", ["nothing-of-this-name"])
    environment.create()
    with pytest.raises(ProcessError) as raised:
        environment._install_project(None, "0" * 40, str(project))
    assert "nothing-of-this-name (not installed)" in raised.value.stderr
    with pytest.raises(ProcessError):
        environment._install_project(None, "0" * 40, str(tmp_path))
