from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from assay.ci.gate.signals import read_figures


def manifest(**changes):
    case = {"max_absolute_error": 2e-5, "absolute_tolerance": 1e-4, "cosine_similarity": 0.999}
    level = {
        "entry": {"library": "lib/model.so"},
        "verification": {"cases": [case, {**case, "max_absolute_error": 5e-5, "cosine_similarity": 1.0}]},
        "workspace": {"maximum_bytes": 4096},
    }
    return {
        "levels": [level],
        "weights": [{"bytes": 100}, {"bytes": 28}],
        "schema_version": 9,
        "of_the_future": 1,
        **changes,
    }


@pytest.fixture
def artifact(tmp_path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "lib").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest()))
    return folder


def test_figures_of_a_manifest_of_any_version(artifact):
    (artifact / "lib" / "model.so").write_bytes(b"none")
    figures = read_figures(artifact)
    size = len((artifact / "manifest.json").read_bytes()) + 4
    assert figures["artifact_size"] == size
    assert figures["weights"] == 128
    assert figures["workspace"] == 4096
    assert figures["error"] == pytest.approx(0.5)
    assert figures["cosine_distance"] == pytest.approx(0.001)
    assert "no ELF file" in str(figures["kernels"])


def test_kernels_are_counted_in_the_library(artifact, tmp_path):
    (tmp_path / "model.c").write_text(
        "int __tvm_ffi_a(void) { return 0; }\nint __tvm_ffi_b(void) { return 0; }\n"
        "int helper(void) { return 0; }\nint __tvm_ffi__library_bin(void) { return 0; }\n"
    )
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-nostdlib"]
    command += ["-o", str(artifact / "lib" / "model.so"), str(tmp_path / "model.c")]
    subprocess.run(command, check=True, capture_output=True)
    assert read_figures(artifact)["kernels"] == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"levels": 3}'])
def test_a_manifest_that_is_damaged_leaves_the_size(artifact, content):
    (artifact / "manifest.json").write_bytes(content)
    figures = read_figures(artifact)
    assert isinstance(figures["artifact_size"], float)
    assert "cannot be read" in str(figures["error"])
    assert "cannot be read" in str(figures["kernels"])


def test_what_was_never_run_has_no_error(artifact):
    document = manifest()
    document["levels"][0]["verification"]["cases"] = []
    del document["levels"][0]["workspace"]
    (artifact / "manifest.json").write_text(json.dumps(document))
    figures = read_figures(artifact)
    assert figures["error"] == figures["cosine_distance"] == "Nothing was compared with ONNX Runtime."
    assert figures["workspace"] == "The manifest does not tell."
