"""A real, tiny artifact, compiled once per test session."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.runtime.artifact import write_artifact
from assay.runtime.cpu import detect_cpu
from assay.runtime.manifest import (
    Entry,
    Execution,
    Input,
    Level,
    Manifest,
    ModelInfo,
    Output,
    SymbolicSize,
    TargetInfo,
    Verification,
    Weight,
)
from assay.runtime.weights import save_weights

ROWS, COLUMNS = 96, 33


def make_level(name: str, *features: str, **changes: Any) -> Level:
    """A level of the test model that needs ``features``, with some fields changed."""
    triple = f"{detect_cpu().machine}-linux-gnu"
    fields: dict[str, Any] = {
        "target": TargetInfo(name=name, triple=triple, cpu="generic", features=features),
        "executed": Execution.NATIVE,
        "entry": Entry(function="main", library="lib/model.so", weights=("w", "b")),
        "verification": Verification(reference="numpy"),
    }
    return Level(**{**fields, **changes})


def make_manifest(**changes: Any) -> Manifest:
    """The manifest of the test model, with some fields changed."""
    digest = "sha256:" + "0" * 64
    batch = SymbolicSize(name="batch", default=1, minimum=1, maximum=4096)
    fields: dict[str, Any] = {
        "assay_version": "0.1.0",
        "model": ModelInfo(
            name="tiny",
            description="relu(x @ w + b)",
            licence="Apache-2.0",
            weights="random",
            source_digest=digest,
            canonical_digest=digest,
        ),
        "scheme": "f32",
        "profile": "release",
        "inputs": (Input(name="x", dtype="float32", shape=(batch, ROWS)),),
        "outputs": (
            Output(name="y", dtype="float32", shape=("batch", COLUMNS)),
            Output(name="z", dtype="float32", shape=("batch", COLUMNS)),
        ),
        "weights": (
            Weight(name="w", dtype="float32", shape=(ROWS, COLUMNS), bytes=ROWS * COLUMNS * 4),
            Weight(name="b", dtype="float32", shape=(COLUMNS,), bytes=COLUMNS * 4),
        ),
        "levels": (make_level("native"),),
        "tvm_runtime": "lib/libtvm_runtime.so",
        "tools": {name: importlib.metadata.version(name) for name in ("apache-tvm", "apache-tvm-ffi")},
    }
    return Manifest(**{**fields, **changes})


def make_weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "w": generator.standard_normal((ROWS, COLUMNS), dtype=np.float32),
        "b": generator.standard_normal(COLUMNS, dtype=np.float32),
    }


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """Files of the test model, and what it computes."""

    files: dict[str, Path]
    weights: dict[str, np.ndarray]

    def write(self, destination: Path, *, packed: bool = False, **changes: Any) -> Path:
        return write_artifact(destination, make_manifest(**changes), self.files, packed=packed)

    def reference(self, x: np.ndarray) -> dict[str, np.ndarray]:
        y = np.maximum(x @ self.weights["w"] + self.weights["b"], 0)
        return {"y": y, "z": np.exp(-y)}


@pytest.fixture(scope="session", name="make_manifest")
def _make_manifest() -> Callable[..., Manifest]:
    """The manifest of the test model, with the fields changed that are given by keyword."""
    return make_manifest


@pytest.fixture(scope="session", name="make_level")
def _make_level() -> Callable[..., Level]:
    """A level of the test model: its name, the features that it needs, and fields that are changed."""
    return make_level


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    pytest.importorskip("ziglang", reason="the compile extra is not installed")
    folder = tmp_path_factory.mktemp("tiny")
    library = folder / "model.so"
    script = Path(__file__).with_name("compile_tiny.py")
    done = subprocess.run([sys.executable, script, library], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    weights = make_weights()
    save_weights(folder / "weights.safetensors", weights)
    files = {
        "lib/model.so": library,
        "lib/libtvm_runtime.so": Path(done.stdout.strip().splitlines()[-1]),
        "weights.safetensors": folder / "weights.safetensors",
    }
    return Tiny(files=files, weights=weights)


@pytest.fixture(scope="session")
def tiny_artifact(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test model as a directory; not to be changed."""
    return tiny.write(tmp_path_factory.mktemp("artifacts") / "tiny")
