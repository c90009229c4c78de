"""CI must not pass because a test was skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CASES = """
import pytest

def test_skips_for_a_missing_package():
    pytest.skip("torch is missing")

@pytest.mark.skipif(True, reason="needs AVX-512 hardware")
def test_needs_hardware():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure():
    raise ValueError

def test_passes():
    pass
"""

MODULE_SKIP = """
import pytest
pytest.importorskip("a_package_that_nobody_has")
"""


def run_pytest(folder: Path, *options: str, ci: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_ADDOPTS"}}
    if ci is not None:
        environment["CI"] = ci
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *options, "."]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_cases.py").write_text(CASES)
    return tmp_path


def test_a_skip_passes_at_a_developers_desk(folder: Path) -> None:
    result = run_pytest(folder)
    assert result.returncode == 0, result.stdout
    assert "1 passed, 2 skipped, 1 xfailed" in result.stdout


@pytest.mark.parametrize(("options", "ci"), [((), "true"), (("--fail-on-skip",), None)])
def test_a_skip_fails_in_ci_unless_hardware_is_the_reason(
    folder: Path, options: tuple[str, ...], ci: str | None
) -> None:
    result = run_pytest(folder, *options, ci=ci)
    assert result.returncode == 1, result.stdout
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed" in result.stdout
    assert "was skipped, and --fail-on-skip is in force: " in result.stdout
    assert "torch is missing" in result.stdout


def test_a_skipped_module_fails_in_ci(folder: Path) -> None:
    (folder / "test_module.py").write_text(MODULE_SKIP)
    result = run_pytest(folder, ci="true")
    assert result.returncode != 0, result.stdout
    assert "a_package_that_nobody_has" in result.stdout
