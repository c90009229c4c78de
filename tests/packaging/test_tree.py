"""The shape of the source tree: namespace portions, typing markers, files that stay readable."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PORTIONS = ("benchmarks", "ci", "cli", "compile", "models", "results", "runtime")
MAXIMUM_LINES = 400


def python_files() -> list[Path]:
    folders = [ROOT / folder for folder in (*PORTIONS, "tests")]
    return [ROOT / "noxfile.py", *(path for folder in folders for path in sorted(folder.rglob("*.py")))]


def test_no_portion_claims_the_namespace() -> None:
    # One such file hides every sibling portion from an editable install.
    assert [portion for portion in PORTIONS if (ROOT / portion / "assay" / "__init__.py").exists()] == []


@pytest.mark.parametrize("portion", PORTIONS)
def test_every_portion_is_one_typed_package(portion: str) -> None:
    package = ROOT / portion / "assay" / portion
    assert (package / "__init__.py").is_file()
    assert (package / "py.typed").is_file()


@pytest.mark.parametrize("portion", PORTIONS)
def test_every_folder_with_modules_is_a_package(portion: str) -> None:
    folders = {path.parent for path in (ROOT / portion / "assay" / portion).rglob("*.py")}
    assert [
        str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()
    ] == []


def test_every_tool_knows_the_same_portions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tool = project["tool"]
    found = tuple(sorted(path.parent.name for path in ROOT.glob("*/assay")))
    assert found == PORTIONS
    assert sorted(tool["hatch"]["build"]["dev-mode-dirs"]) == list(PORTIONS)
    packages = tool["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(packages) == [f"{portion}/assay" for portion in PORTIONS]
    assert sorted(tool["mypy"]["packages"]) == [*(f"assay.{portion}" for portion in PORTIONS), "suites"]
    assert sorted(tool["mypy"]["mypy_path"]) == [f"$MYPY_CONFIG_FILE_DIR/{portion}" for portion in PORTIONS]
    assert sorted(tool["ruff"]["src"]) == list(PORTIONS)


def test_no_file_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files()}
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > MAXIMUM_LINES
    ]
    assert not long, f"over {MAXIMUM_LINES} lines; split where the subject splits: {', '.join(long)}"
