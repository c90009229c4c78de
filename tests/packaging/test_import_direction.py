"""Imports go one way: cli > ci > benchmarks > compile > models > runtime, with results a leaf beside them."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = frozenset({"errors", "progress", "registry", "schema"})
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    "runtime": BASE,
    "results": BASE,
    "models": BASE | {"runtime"},
    "compile": BASE | {"runtime", "models"},
    "benchmarks": BASE | {"runtime", "results", "models", "compile"},
    "ci": BASE | {"runtime", "results", "models", "compile", "benchmarks"},
    "cli": BASE | {"runtime", "results", "models", "compile", "benchmarks", "ci"},
}
"""For each part of ``assay``, the parts that it may import besides itself."""

SMALL = BASE | {"runtime"}
"""The parts that run with the base install alone: no third package but its dependencies, not even lazily."""

OPTIONAL = {
    "runtime/assay/runtime/generate/": frozenset({"jinja2", "tokenizers"}),
    "runtime/assay/runtime/devices/opencl": frozenset({"pyopencl"}),
    "runtime/assay/runtime/devices/wgpu_device": frozenset({"wgpu"}),
    "runtime/assay/runtime/drivers/wasm_module": frozenset({"wasmtime"}),
    "runtime/assay/runtime/devices/cuda": frozenset({"cuda"}),
    "runtime/assay/runtime/devices/rocm": frozenset({"hip"}),
    "runtime/assay/runtime/devices/metal": frozenset({"Metal"}),
}
"""What extras bring, by what the paths of the files begin with that may import it inside of functions."""

EXTRAS = {
    "generate": "runtime/assay/runtime/generate/",
    "webgpu": "runtime/assay/runtime/devices/wgpu_device",
    "wasm": "runtime/assay/runtime/drivers/wasm_module",
}
"""The extras, by what they are for."""

# A distribution whose import name is another one.
IMPORT_NAMES = {"apache-tvm-ffi": "tvm_ffi"}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported module, by its absolute dotted name, and the line that imports it."""

    module: str
    line: int


def imports_of(path: Path, package: str) -> Iterator[Import]:
    """Every import of a file, lazy and type-only ones too; ``package`` resolves relative ones."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import():
                yield from (Import(module=alias.name, line=node.lineno) for alias in node.names)
            case ast.ImportFrom():
                parents = package.split(".")
                prefix = parents[: len(parents) - node.level + 1] if node.level else []
                module = ".".join([*prefix, *([node.module] if node.module else [])])
                # A namespace has no names of its own: `from assay import runtime` imports assay.runtime.
                names = [f"{module}.{alias.name}" for alias in node.names] if module == "assay" else [module]
                yield from (Import(module=name, line=node.lineno) for name in names)
            case ast.Call(func=func, args=[ast.Constant(value=str(module)), *_]) if ast.unparse(
                func
            ).rpartition(".")[2] in {"import_module", "__import__"}:
                yield Import(module=module, line=node.lineno)


def source_files(root: Path) -> Iterator[tuple[Path, str]]:
    """Every Python file below the namespace portions of ``root``, with its dotted package."""
    for portion in sorted(path for path in root.glob("*/assay") if path.is_dir()):
        for path in sorted(portion.rglob("*.py")):
            yield path, ".".join(path.parent.relative_to(portion.parent).parts)


def violations(root: Path, base_packages: frozenset[str]) -> list[str]:
    """One line for every import against the direction: where it stands, and what is allowed there."""
    found = []
    for path, package in source_files(root):
        part = package.split(".")[1] if "." in package else path.stem
        name = path.relative_to(root).as_posix()
        optional = {each for start, brought in OPTIONAL.items() if name.startswith(start) for each in brought}
        for imported in imports_of(path, package):
            top, _, rest = imported.module.partition(".")
            where = f"{path.relative_to(root)}:{imported.line}: assay.{part} imports {imported.module}"
            if top == "assay":
                other = rest.partition(".")[0]
                if other not in {"", part} | ALLOWED[part]:
                    found.append(f"{where}; it may import only {', '.join(sorted(ALLOWED[part]))}")
            elif part in SMALL and top not in base_packages | optional | sys.stdlib_module_names:
                found.append(f"{where}, which the base install does not bring")
    return found


def base_packages() -> frozenset[str]:
    """Import names of the dependencies in pyproject.toml, without the extras."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = (dependency.partition("=")[0].rstrip("<>~! ") for dependency in dependencies)
    return frozenset(IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names)


def test_every_import_follows_the_direction() -> None:
    found = violations(ROOT, base_packages())
    assert not found, "\n" + "\n".join(found)


def test_optional_packages_are_those_of_the_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, start in EXTRAS.items():
        assert {each.partition(">")[0] for each in extras[extra]} == OPTIONAL[start]


def test_the_runtime_imports_without_optional_packages() -> None:
    modules = [
        ".".join([package, *([] if path.stem == "__init__" else [path.stem])])
        for path, package in source_files(ROOT)
        if package.startswith("assay.runtime")
    ]
    optional = {each for brought in OPTIONAL.values() for each in brought}
    absent = sorted({*optional, "tvm", "torch", "onnx", "onnxruntime", "scipy", "psutil"})
    code = f"""
import importlib, sys
for name in {absent}:
    sys.modules[name] = None
for name in {modules}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_part_has_a_rule_and_is_looked_at() -> None:
    parts = {package.split(".")[1] if "." in package else path.stem for path, package in source_files(ROOT)}
    assert parts == set(ALLOWED)


def test_the_base_install_brings_no_compiler() -> None:
    assert "tvm_ffi" in base_packages()
    assert not base_packages() & {"tvm", "torch", "onnx", "onnxruntime", "scipy", "transformers"}


def plant(root: Path, file: str, source: str) -> None:
    """Write ``source`` to a file below the portion that its first folder names."""
    portion = "runtime" if file in {f"{name}.py" for name in BASE} else file.partition("/")[0]
    path = root / portion / "assay" / file
    path.parent.mkdir(parents=True)
    path.write_text(source + "\n")


@pytest.mark.parametrize(
    ("file", "source", "line", "message"),
    [
        ("runtime/a.py", "import tvm", 1, "assay.runtime imports tvm, which the base install does not bring"),
        ("runtime/a.py", "def f():\n    import onnx.helper", 2, "assay.runtime imports onnx.helper"),
        ("runtime/a.py", "from torch import nn", 1, "assay.runtime imports torch"),
        ("runtime/a.py", "import tokenizers", 1, "assay.runtime imports tokenizers"),
        ("runtime/generate/a.py", "def f():\n    import tokenizers", 2, None),
        ("runtime/a.py", "from importlib import import_module as m", 1, None),
        (
            "runtime/a.py",
            "x = importlib.import_module('onnxruntime')",
            1,
            "assay.runtime imports onnxruntime",
        ),
        (
            "runtime/a.py",
            "from assay import models",
            1,
            "assay.runtime imports assay.models; it may import only",
        ),
        ("errors.py", "from assay.runtime import load", 1, "assay.errors imports assay.runtime"),
        ("results/a.py", "import assay.runtime.manifest", 1, "assay.results imports assay.runtime.manifest"),
        ("models/b/a.py", "from ...compile import build", 1, "assay.models imports assay.compile"),
        ("compile/a.py", "from assay.benchmarks.peers import x", 1, "assay.compile imports assay.benchmarks"),
        (
            "benchmarks/a.py",
            "if TYPE_CHECKING:\n    import assay.cli",
            2,
            "assay.benchmarks imports assay.cli",
        ),
        ("ci/a.py", "import assay.cli", 1, "assay.ci imports assay.cli"),
        ("runtime/a.py", "import os, numpy as np, tvm_ffi\nfrom . import weights", 1, None),
        (
            "compile/b/a.py",
            "import tvm\nfrom ..lower import x\nfrom assay.runtime.artifact import y",
            1,
            None,
        ),
        ("cli/a.py", "from assay.benchmarks import harness\nfrom assay import results", 1, None),
    ],
)
def test_a_planted_import_is_judged(
    tmp_path: Path, file: str, source: str, line: int, message: str | None
) -> None:
    plant(tmp_path, file, source)
    found = violations(tmp_path, base_packages())
    if message is None:
        assert found == []
    else:
        assert len(found) == 1
        assert f"{file}:{line}: {message}" in found[0]
