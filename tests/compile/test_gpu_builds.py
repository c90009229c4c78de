"""Builds for GPUs that this machine lacks: compiled, and compared by running their source on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import assay.runtime
from assay.compile.build import build_artifact
from assay.compile.emulation.gpu import execution
from assay.compile.emulation.gpu.execution import emulated_form, run_emulated
from assay.compile.targets import gpu_targets
from assay.compile.verify import Case
from assay.errors import DeviceError, EmulatorError, VerificationError
from assay.models.registry import find_model
from assay.runtime.artifact import open_artifact
from assay.runtime.device_code import CodeFormat, decode_device_code
from assay.runtime.manifest import Execution

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """relu(x @ w + b), normalized, with any number of rows."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((24, 20)).astype(np.float32) / 5,
        "b": random.standard_normal(20).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("Softmax", ["positive"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 20])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("model") / "layer.onnx"
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The model for three targets, in one artifact."""
    path = tmp_path_factory.mktemp("built") / "artifact"
    build_artifact(find_model(str(model)), target="cuda-sm_80,rocm-gfx942,metal", output=path, cache=cache)
    return path


def test_levels_were_never_executed_and_their_source_was_compared(built: Path) -> None:
    levels = {level.target.name: level for level in open_artifact(built).manifest.levels}
    assert set(levels) == {"cuda-sm_80", "rocm-gfx942", "metal"}
    for level in levels.values():
        assert level.executed is Execution.NEVER
        assert "never executed" in (level.verification.note or "")
        assert len({case.sizes["n"] for case in level.verification.cases}) > 1
        assert all(case.max_absolute_error < 1e-5 for case in level.verification.cases)
    assert "waves of 64 threads" in (levels["rocm-gfx942"].verification.note or "")


def test_code_lies_in_the_artifact_with_what_it_takes(built: Path) -> None:
    artifact = open_artifact(built)
    forms = {"cuda-sm_80": CodeFormat.CUBIN, "rocm-gfx942": CodeFormat.CODE_OBJECT, "metal": CodeFormat.MSL}
    for level in artifact.manifest.levels:
        code = decode_device_code(artifact.read(level.entry.library))
        folder = str(Path(level.entry.library).parent)
        data = artifact.read(f"{folder}/{code.files[forms[level.target.name]]}")
        assert data.startswith(b"#include <metal_stdlib>" if level.target.name == "metal" else b"\x7fELF")
        assert code.kernels


def test_no_device_is_a_clear_error(built: Path) -> None:
    with pytest.raises(DeviceError, match="no code for a CPU"):
        assay.runtime.load(built, device="cpu")
    with pytest.raises(DeviceError, match="Metal is on macOS only"):
        assay.runtime.load(built, device="metal")


def test_a_run_on_the_cpu_that_takes_too_long_or_is_of_damaged_code(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    case = Case(
        sizes={"n": 2},
        inputs={"x": random.standard_normal((2, 24)).astype(np.float32)},
        expected={"y": np.zeros((2, 20), np.float32)},
    )
    (found,) = run_emulated(built, [case], level="metal")
    np.testing.assert_allclose(found["y"].sum(-1), 1, rtol=1e-5)
    damaged = tmp_path / "damaged"
    shutil.copytree(built, damaged)
    (source,) = damaged.rglob("kernels.metal")
    source.write_text(source.read_text().replace("exp(", "unknown_function("))
    with pytest.raises(VerificationError, match="damaged"):
        run_emulated(damaged, [case], level="metal")
    monkeypatch.setattr(execution, "_TIMEOUT_SECONDS", 0.01)
    with pytest.raises(EmulatorError, match=r"more than 0\.01 s"):
        run_emulated(built, [case], level="metal")


def test_every_api_that_no_machine_here_has_is_emulated() -> None:
    forms = {target.api.value: emulated_form(target) for target in gpu_targets().values()}
    assert forms["cuda"] is not None
    assert forms["metal"] is not None
    assert forms["rocm"] is not None
    assert forms["rocm"].kind == "cuda"
    assert forms["opencl"] is None
