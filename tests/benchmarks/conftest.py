from __future__ import annotations

from pathlib import Path

import pytest

from assay.models.export import CanonicalModel, export_canonical
from assay.models.registry import find_model
from assay.runtime.artifact import write_artifact
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
)


@pytest.fixture(scope="session")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> CanonicalModel:
    """The model y = (x @ ones) + 1 over a batch of rows of four."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("tiny")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "one"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.ones((4, 3), np.float32), "w"),
            numpy_helper.from_array(np.ones(3, np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "tiny.onnx")
    return export_canonical(find_model(str(folder / "tiny.onnx")), folder / "canonical")


@pytest.fixture
def artifact(tmp_path: Path, canonical: CanonicalModel) -> Path:
    """An artifact that is whole but whose library is none: it opens, and does not load."""
    manifest = Manifest(
        assay_version="0",
        model=ModelInfo(
            name="tiny",
            description="A test.",
            licence="MIT",
            weights="trained",
            source_digest=canonical.source_digest,
            canonical_digest=canonical.digest,
        ),
        scheme="f32",
        profile="release",
        inputs=(
            Input(
                name="x",
                dtype="float32",
                shape=(SymbolicSize(name="batch", default=1, minimum=1, maximum=8), 4),
            ),
        ),
        outputs=(Output(name="y", dtype="float32", shape=("batch", 3)),),
        weights=(),
        levels=(
            Level(
                target=TargetInfo(name="x86-64-v3", triple="x86_64-linux-gnu", cpu="haswell", features=()),
                executed=Execution.NEVER,
                entry=Entry(function="main", library="lib/model.so"),
                verification=Verification(reference="onnxruntime"),
            ),
        ),
        tvm_runtime="lib/libtvm_runtime.so",
        tools={},
    )
    files: dict[str, bytes | Path] = {"lib/model.so": b"none", "lib/libtvm_runtime.so": b"none"}
    return write_artifact(tmp_path / "artifact", manifest, files)
