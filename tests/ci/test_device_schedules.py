"""Both forms of a small model on a device, in turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from assay.ci.device_schedules import main
from assay.runtime.devices import find_devices


@pytest.mark.slow
def test_a_model_runs_in_both_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not find_devices()["opencl"].devices:
        pytest.skip("needs an OpenCL device, such as ci/emulator.sh installs")
    weight = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "w")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [value("x", onnx.TensorProto.FLOAT, [5, 3])],
        [value("y", onnx.TensorProto.FLOAT, [5, 4])],
        [weight],
    )
    path = tmp_path / "product.onnx"
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    assert main([str(path), "--repeats", "1"]) == 0
    said = capsys.readouterr().out
    assert "dlight" in said
    assert "ratio" in said
    assert main([str(tmp_path / "none.onnx")]) > 1
    assert "none.onnx" in capsys.readouterr().err
