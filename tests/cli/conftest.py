from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import msgspec
import numpy as np
import pytest

import assay.runtime.session
from assay.cli.main import main
from assay.runtime.artifact import open_artifact, write_artifact
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
    VerifiedCase,
)
from assay.runtime.session import check_inputs

from ..gate_reports import make_report, make_row  # noqa: F401 - fixtures

BATCH = SymbolicSize(name="batch", default=2, minimum=1, maximum=8)


class Cli:
    """Runs the command in this process and keeps stdout and stderr apart."""

    def __call__(self, *arguments: object, code: int = 0) -> click.testing.Result:
        result = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, f"exit code {result.exit_code}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr
        return result

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def error(self, *arguments: object, code: int) -> dict[str, Any]:
        """The error that ``--json`` gives."""
        result = self(*arguments, "--json", code=code)
        found = json.loads(result.stderr.splitlines()[-1])["error"]
        assert found["exit_code"] == code
        assert isinstance(found, dict)
        return found


@pytest.fixture
def cli() -> Cli:
    return Cli()


@pytest.fixture
def manifest() -> Manifest:
    """Of a model with the inputs x: float32[batch, 4] and n: int64[batch], and one output like x."""
    case = VerifiedCase(
        sizes={"batch": 2},
        output="y",
        max_absolute_error=1e-6,
        max_relative_error=1e-5,
        cosine_similarity=1.0,
        absolute_tolerance=1e-4,
        relative_tolerance=1e-3,
    )
    return Manifest(
        assay_version="0",
        model=ModelInfo(
            name="pair",
            description="A test.",
            licence="MIT",
            weights="trained",
            source_digest="sha256:" + "0" * 64,
            canonical_digest="sha256:" + "1" * 64,
        ),
        scheme="f32",
        profile="release",
        inputs=(
            Input(name="x", dtype="float32", shape=(BATCH, 4)),
            Input(name="n", dtype="int64", shape=(BATCH,)),
        ),
        outputs=(Output(name="y", dtype="float32", shape=("batch", 4)),),
        weights=(),
        levels=(
            Level(
                target=TargetInfo(
                    name="x86-64-v3", triple="x86_64-linux-gnu", cpu="haswell", features=("avx2",)
                ),
                executed=Execution.NATIVE,
                entry=Entry(function="main", library="lib/model.so"),
                verification=Verification(reference="onnxruntime 1.0", cases=(case,)),
            ),
        ),
        tvm_runtime="lib/libtvm_runtime.so",
        tools={"onnx": "1.0"},
    )


@pytest.fixture
def never_executed(manifest: Manifest) -> Level:
    """The level of ``manifest`` as one that only the compiler has seen."""
    level = manifest.levels[0]
    note = "Compiled, never executed: no AVX-512."
    verification = msgspec.structs.replace(level.verification, note=note, cases=())
    return msgspec.structs.replace(level, executed=Execution.NEVER, verification=verification)


@pytest.fixture
def make_artifact(tmp_path: Path, manifest: Manifest) -> Callable[..., Path]:
    """A function that writes an artifact whose library is none: it opens, and only a fake can run it."""

    def make(name: str = "artifact", **changes: Any) -> Path:
        files: dict[str, bytes | Path] = {"lib/model.so": b"none", "lib/libtvm_runtime.so": b"none"}
        return write_artifact(tmp_path / name, msgspec.structs.replace(manifest, **changes), files)

    return make


@pytest.fixture
def product_file(tmp_path: Path) -> str:
    """The path of y = x @ w with w [128, 64]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.linspace(-1, 1, 8192, dtype=np.float32).reshape(128, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "product.onnx")
    return str(tmp_path / "product.onnx")


class FakeModel:
    """Stands in for a loaded artifact: y = x + n, after the checks that a real one makes."""

    def __init__(self, manifest: Manifest, threads: int, level: str | None = None) -> None:
        self.manifest = manifest
        names = [each.target.name for each in manifest.levels]
        self.level = manifest.levels[names.index(level) if level else -1]
        self.executed = self.level.executed is not Execution.NEVER
        self.threads = threads
        self.device, self.passed_over = None, ()

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        x, n = check_inputs(self.manifest.inputs, inputs)
        return {"y": (x + n[:, np.newaxis]).astype(np.float32)}


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(
        path: Path,
        *,
        threads: int | None = None,
        verify: bool = True,
        level: str | None = None,
        device: str | None = None,
    ) -> FakeModel:
        return FakeModel(open_artifact(path).manifest, threads or 1, level)

    monkeypatch.setattr(assay.runtime.session, "load", load)
