from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from assay.compile.merge import write_levels
from assay.runtime.artifact import open_artifact, write_artifact
from assay.runtime.kernels import encode_kernels, kernels_file
from assay.runtime.manifest import (
    Entry,
    Execution,
    Input,
    Level,
    Manifest,
    ModelInfo,
    Output,
    TargetInfo,
    Verification,
    Weight,
)
from assay.runtime.weights import save_weights


def single(folder: Path, name: str, arrays: dict[str, Any]) -> Path:
    """An artifact of one level whose library is its name."""
    digest = "sha256:" + "0" * 64
    level = Level(
        target=TargetInfo(name=name, triple="x86_64-linux-gnu", cpu=name, features=()),
        executed=Execution.NEVER,
        entry=Entry(function="main", library="lib/model.so", weights=tuple(arrays)),
        verification=Verification(reference="onnxruntime"),
    )
    manifest = Manifest(
        assay_version="0",
        model=ModelInfo(
            name="m",
            description="",
            licence="",
            weights="trained",
            source_digest=digest,
            canonical_digest=digest,
        ),
        scheme="f32",
        profile="release",
        inputs=(Input(name="x", dtype="float32", shape=(1,)),),
        outputs=(Output(name="y", dtype="float32", shape=(1,)),),
        weights=tuple(
            Weight(name=n, dtype=str(a.dtype), shape=a.shape, bytes=a.nbytes)  # type: ignore[arg-type]
            for n, a in arrays.items()
        ),
        levels=(level,),
        tvm_runtime="lib/libtvm_runtime.so",
        tools={},
    )
    files: dict[str, bytes | Path] = {
        "lib/model.so": name.encode(),
        kernels_file("lib/model.so"): encode_kernels([]),
        "lib/libtvm_runtime.so": b"runtime",
    }
    if arrays:
        save_weights(folder / f"{name}.safetensors", arrays)
        files["weights.safetensors"] = folder / f"{name}.safetensors"
    return write_artifact(folder / name, manifest, files)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_equal_weights_are_kept_once_and_others_get_names_of_their_own(tmp_path: Path, scratch: Path) -> None:
    wide = np.arange(64, dtype=np.float32).reshape(4, 16)
    half = np.arange(40, dtype=ml_dtypes.bfloat16)
    low = {"panel.1": wide.reshape(8, 8), "bias.0": np.ones(16, np.float32), "half": half}
    # The same bytes under another name, other bytes under the same name, and the same bytes in another shape.
    high = {"offset.2": np.ones(16, np.float32), "panel.1": wide + 1, "half": half, "other": wide}
    path = tmp_path / "joined"
    manifest = write_levels(path, [single(tmp_path, "low", low), single(tmp_path, "high", high)], scratch)
    opened = open_artifact(path)
    assert opened.manifest == manifest
    assert [level.entry.library for level in manifest.levels] == ["lib/low/model.so", "lib/high/model.so"]
    assert [opened.read(level.entry.library) for level in manifest.levels] == [b"low", b"high"]
    assert [level.entry.weights for level in manifest.levels] == [
        ("panel.1", "bias.0", "half"),
        ("bias.0", "high/panel.1", "half", "other"),
    ]
    arrays = opened.weights()
    assert sorted(arrays) == ["bias.0", "half", "high/panel.1", "other", "panel.1"]
    for level, wanted in zip(manifest.levels, (low, high), strict=True):
        for name, array in zip(level.entry.weights, wanted.values(), strict=True):
            bits = array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
            np.testing.assert_array_equal(arrays[name], bits)
    again = write_levels(tmp_path / "again", [tmp_path / "low", tmp_path / "high"], scratch)
    assert again == manifest


def test_models_without_weights(tmp_path: Path, scratch: Path) -> None:
    manifest = write_levels(
        tmp_path / "joined", [single(tmp_path, "low", {}), single(tmp_path, "high", {})], scratch
    )
    assert manifest.weights == ()
    assert "weights.safetensors" not in manifest.files
