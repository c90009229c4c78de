from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay.ci.gate.environments import is_assay, make_environment
from assay.errors import GateInfrastructureError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Looks like Assay, and has no compiler."""
    root = tmp_path / "tree"
    (root / "runtime" / "assay" / "runtime").mkdir(parents=True)
    (root / "runtime" / "assay" / "runtime" / "__init__.py").write_text("WHERE = 'tree'\n")
    (root / "pyproject.toml").write_text(
        "[project]\ndependencies = ['numpy>=1', 'click<0.1', 'nonsense-1>2']\n"
    )
    return root


def python(environment, code: str) -> str:
    done = subprocess.run(
        [environment.python, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_side_runs_its_own_code_and_no_other_of_assay(tree, tmp_path):
    assert is_assay(tree)
    environment = make_environment(tree, tmp_path / "python")
    assert environment.python != Path(sys.executable)
    assert python(environment, "import numpy, assay.runtime; print(assay.runtime.WHERE)") == "tree"
    # The tests run from a checkout that has one.
    assert "No module named 'assay.compile'" in python(environment, "import assay.compile")


def test_bytecode_is_there_and_never_that_of_other_text(tree, tmp_path):
    environment = make_environment(tree, tmp_path / "python")
    source = tree / "runtime" / "assay" / "runtime" / "__init__.py"
    assert Path(importlib.util.cache_from_source(source)).is_file()
    before = source.stat()
    source.write_text("WHERE = 'else'\n")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.stat().st_size == before.st_size
    assert python(environment, "import assay.runtime; print(assay.runtime.WHERE)") == "else"


def test_what_the_side_asks_for_and_is_not_there_is_told(tree, tmp_path):
    click, absent = make_environment(tree, tmp_path / "python").notes
    assert click.startswith("it asks for click<0.1, and ")
    assert absent == "it asks for nonsense-1>2, which is not installed"


@pytest.mark.parametrize("text", ["", "[project", "[tool]"])
def test_a_pyproject_that_cannot_be_read_is_told(tree, tmp_path, text):
    (tree / "pyproject.toml").write_text(text)
    (note,) = make_environment(tree, tmp_path / "python").notes
    assert "cannot be read" in note


def test_another_repository_is_run_by_what_is_installed(tmp_path):
    (tmp_path / "tree").mkdir()
    assert not is_assay(tmp_path / "tree")
    assert make_environment(tmp_path / "tree", tmp_path / "python").python == Path(sys.executable)
    assert not (tmp_path / "python").exists()


def test_no_room_for_an_environment_is_the_machines_fault(tree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GateInfrastructureError, match="No environment"):
        make_environment(tree, tmp_path / "file" / "python")
