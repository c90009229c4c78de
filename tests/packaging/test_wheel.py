"""What an installed Assay puts on a machine: the package ``assay``, its metadata, and no other name."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PORTIONS = ("benchmarks", "ci", "cli", "compile", "models", "results", "runtime")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> frozenset[str]:
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


def metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        [member] = [entry for entry in archive.namelist() if entry.endswith(f".dist-info/{name}")]
        return archive.read(member).decode()


def test_one_top_level_name(names: frozenset[str]) -> None:
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"assay"}
    assert len(top) == 2


def test_the_namespace_stays_open(names: frozenset[str]) -> None:
    assert "assay/__init__.py" not in names


def test_the_base_modules_are_typed(names: frozenset[str]) -> None:
    # They lie in the namespace itself, whose marker is the only one that mypy looks for.
    assert {"assay/errors.py", "assay/progress.py", "assay/registry.py", "assay/py.typed"} <= names


@pytest.mark.parametrize("portion", PORTIONS)
def test_every_portion_is_there_and_typed(names: frozenset[str], portion: str) -> None:
    assert f"assay/{portion}/__init__.py" in names
    assert f"assay/{portion}/py.typed" in names


def test_every_source_file_is_there_and_nothing_else(names: frozenset[str]) -> None:
    sources = {
        str(path.relative_to(ROOT / portion))
        for portion in PORTIONS
        for path in (ROOT / portion / "assay").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if name.startswith("assay/")} == sources


def test_the_runtime_stays_small_and_the_licence_travels(wheel: Path, names: frozenset[str]) -> None:
    requirements = Parser().parsestr(metadata(wheel, "METADATA")).get_all("Requires-Dist")
    base = {line.partition("=")[0].rstrip("<>~! ") for line in requirements if "extra ==" not in line}
    assert base == {"apache-tvm-ffi", "click", "msgspec", "numpy", "rich"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_tvm_and_its_ffi_are_pinned_as_one_pair(wheel: Path) -> None:
    requirements = Parser().parsestr(metadata(wheel, "METADATA")).get_all("Requires-Dist")
    pinned = {line.partition(";")[0].strip() for line in requirements if line.startswith("apache-tvm")}
    assert pinned == {"apache-tvm-ffi==0.1.14.post1", "apache-tvm==0.27.0.post1"}


def test_the_command_is_installed(wheel: Path) -> None:
    assert "assay = assay.cli.main:main" in metadata(wheel, "entry_points.txt")
