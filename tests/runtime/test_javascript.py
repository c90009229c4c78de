"""The JavaScript loader, in Node.js."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import assay.runtime.drivers.wasm_module as wasm_module
from assay.runtime.javascript_files import is_javascript, javascript_files

HERE = Path(__file__).parent
LOADER = Path(wasm_module.__file__).parents[1] / "javascript"


def _load_case() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wasm_case", HERE / "wasm_case.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("wasmtime", reason="needs the wasm extra: pip install -e '.[wasm]'")
    path: Path = _load_case().write_case(tmp_path_factory.mktemp("javascript") / "artifact")
    return path


def run_node(node: Path, *arguments: str | Path, **variables: str) -> str:
    command = [str(node), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **variables}, timeout=120
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def test_loader_in_node(artifact: Path, node: Path) -> None:
    variables = {"LOADER": str(LOADER), "IMPORTED": " ".join(wasm_module.IMPORTED)}
    # What comes with the artifact is the same.
    assert (artifact / "javascript" / "model.js").read_bytes() == (LOADER / "model.js").read_bytes()
    report = run_node(
        node, "--test", HERE / "javascript" / "model.test.mjs", ARTIFACT=str(artifact), **variables
    )
    found = re.search(r"^\S+ pass (\d+)$", report, re.M)
    assert found is not None
    assert int(found[1]) >= 50


def test_parts_of_webgpu_that_need_no_device(node: Path) -> None:
    report = run_node(node, "--test", HERE / "javascript" / "gpu.test.mjs", LOADER=str(LOADER))
    found = re.search(r"^\S+ pass (\d+)$", report, re.M)
    assert found is not None
    assert int(found[1]) >= 6


def test_benchmark_of_an_artifact_prints_json(artifact: Path, node: Path) -> None:
    report = json.loads(run_node(node, artifact / "javascript" / "benchmark.js", artifact, "3"))
    assert report["model"] == "by-hand"
    assert report["runs"] == 3
    assert 0 < report["minimum_milliseconds"] <= report["median_milliseconds"]


def test_package_is_complete() -> None:
    package = json.loads((LOADER / "package.json").read_text())
    assert package["type"] == "module"
    entry = package["exports"]["."]
    files = javascript_files()
    for name in (entry["types"], entry["default"]):
        assert f"javascript/{name.removeprefix('./')}" in files
    assert all(is_javascript(name) for name in files)
    assert not is_javascript("lib/model.wasm")
    # Everything that a file imports is there.
    for name, path in files.items():
        assert isinstance(path, Path)
        for imported in re.findall(r'from "\./([\w.]+)"', path.read_text()):
            assert f"javascript/{imported}" in files, f"{name} imports {imported}"


def test_types_name_what_the_module_exports(node: Path) -> None:
    declared = set(
        re.findall(
            r"^export (?:declare )?(?:class|function) (\w+)", (LOADER / "index.d.ts").read_text(), re.M
        )
    )
    code = f"console.log(Object.keys(await import({json.dumps((LOADER / 'index.js').as_uri())})).join(' '))"
    assert set(run_node(node, "--input-type=module", "-e", code).split()) == declared
