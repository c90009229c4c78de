from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
import pytest

from assay.compile.emit import emit_library, runtime_library
from assay.compile.targets import targets

TARGET = targets()["x86-64-v3"]


@pytest.fixture(scope="module")
def lowered(tvm: Any, perceptron: onnx.ModelProto) -> Any:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles

    return lower(
        import_onnx(perceptron),
        target=TARGET,
        profile=profiles()["release"],
        sizes={"batch": 1},
        maxima={"batch": 64},
    )


def test_library_is_the_same_every_time(lowered: Any, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "a" / "longer" / "path"]
    for folder in folders:
        folder.mkdir(parents=True)
    first, second = (emit_library(lowered.executable, TARGET, folder).read_bytes() for folder in folders)
    assert first == second
    assert str(tmp_path).encode() not in first


def test_only_the_library_is_left(lowered: Any, tmp_path: Path) -> None:
    library = emit_library(lowered.executable, TARGET, tmp_path)
    assert list(tmp_path.iterdir()) == [library]


def test_library_depends_on_no_other(lowered: Any, tmp_path: Path) -> None:
    library = emit_library(lowered.executable, TARGET, tmp_path)
    # The name of every library that is needed lies in the file as text.
    assert re.findall(rb"[\w.+-]+\.so[\w.]*", library.read_bytes()) == []


def test_weights_are_not_in_the_library(lowered: Any) -> None:
    assert {array.shape for array in lowered.weights.values()} >= {(24,)}
    assert sum(array.size for array in lowered.weights.values()) >= 20 * 24 + 24 + 24 * 7
    assert lowered.unscheduled == ()


def test_runtime_library_is_that_of_the_installed_compiler() -> None:
    assert runtime_library().read_bytes()[:4] == b"\x7fELF"
