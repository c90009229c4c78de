"""Launch plans for devices: what they hold, and, where an OpenCL device is, what they compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.build import build_artifact
from assay.compile.importer import import_onnx
from assay.compile.lower import Lowered
from assay.compile.profiles import profiles
from assay.compile.targets import gpu_targets
from assay.errors import DeviceError
from assay.models.registry import find_model
from assay.runtime import load
from assay.runtime.devices import find_devices, open_device
from assay.runtime.drivers.plan_device import DeviceCalls
from assay.runtime.manifest import Execution
from assay.runtime.plan import decode_plan, encode_plan

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="module")
def needs_opencl() -> None:
    found = find_devices()["opencl"]
    if not found.devices:
        pytest.skip(f"needs an OpenCL device, such as ci/emulator.sh installs: {found.reason}")


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def lowered(model: onnx.ModelProto, target: str = "opencl") -> Lowered:
    from assay.compile.lower_device import lower_device

    dims = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    return lower_device(
        import_onnx(model),
        target=gpu_targets()[target],
        profile=profiles()["release"],
        sizes=dict.fromkeys(dims, 4),
        maxima=dict.fromkeys(dims, 64),
    )


def agree(model: onnx.ModelProto, *cases: dict[str, Any]) -> None:
    """Compare what the OpenCL device computes with ONNX Runtime."""
    from assay.compile.verify import reference_outputs

    onnx.checker.check_model(model)
    expected = reference_outputs(model.SerializeToString(), cases)
    form = lowered(model)
    assert form.plan is not None
    plan = decode_plan(encode_plan(form.plan))
    dtypes = [str(array.dtype) for array in expected[0].values()]
    device = open_device("opencl")
    calls = DeviceCalls(plan, device, form.executable.files, list(form.weights.values()), dtypes)
    for inputs, wanted in zip(cases, expected, strict=True):
        actual = calls.call(list(inputs.values()))
        for array, (name, correct) in zip(actual, wanted.items(), strict=True):
            assert array.shape == correct.shape
            np.testing.assert_allclose(array, correct, rtol=1e-4, atol=1e-5, err_msg=name)
    calls.close()


def test_a_plan_has_launches_whose_sizes_are_known(tvm: Any, perceptron: onnx.ModelProto) -> None:
    form = lowered(perceptron)
    plan = form.plan
    assert plan is not None
    assert [symbol.name for symbol in plan.symbols] == ["batch"]
    assert {kernel.file for kernel in plan.kernels} <= set(form.executable.files)
    assert all(kernel.threads is not None for kernel in plan.kernels)
    assert all(any(p.written for p in kernel.parameters) for kernel in plan.kernels)
    assert plan.written_inputs == ()
    source = next(iter(form.executable.files.values())).decode()
    assert all(kernel.name in source for kernel in plan.kernels)


def test_products_reductions_and_positions(tvm: Any, needs_opencl: None, perceptron: onnx.ModelProto) -> None:
    agree(perceptron, {"x": normal(5, 20)}, {"x": normal(33, 20)}, {"x": normal(5, 20)})


def test_outputs_that_are_inputs_weights_and_views(
    tvm: Any, needs_opencl: None, make_model: MakeModel
) -> None:
    model = make_model(
        [
            node("Identity", ["x"], ["same"]),
            node("Identity", ["w"], ["weight"]),
            node("Relu", ["x"], ["h"]),
            node("Reshape", ["h", "flat"], ["view"]),
            node("LayerNormalization", ["h", "scale", "bias"], ["y"]),
        ],
        {"x": ["n", 6]},
        {"y": ["n", 6], "view": [None], "same": ["n", 6], "weight": [40]},
        {"w": normal(40), "flat": np.array([-1]), "scale": normal(6), "bias": normal(6)},
    )
    agree(model, {"x": normal(3, 6)}, {"x": normal(9, 6)})


def test_element_types(
    tvm: Any, needs_opencl: None, element_types: tuple[onnx.ModelProto, dict[str, Any]]
) -> None:
    agree(*element_types)


def test_convolutions_of_groups(tvm: Any, needs_opencl: None, make_model: MakeModel) -> None:
    model = make_model(
        [node("Conv", ["x", "w"], ["y"], group=4)],
        {"x": [1, 136, 14, 14]},
        {"y": [1, 136, 14, 14]},
        {"w": normal(136, 34, 1, 1)},
    )
    agree(model, {"x": normal(1, 136, 14, 14)})


def test_no_kernel_only_reads_memory_that_it_writes(
    tvm: Any, needs_opencl: None, make_model: MakeModel
) -> None:
    """WebGPU refuses it; TVM puts the sum of a convolution and its bias where the convolution was."""
    codes = ["scale", "zero"]
    model = make_model(
        [
            node("Conv", ["x", "w", "b"], ["c"]),
            node("QuantizeLinear", ["c", *codes], ["c_codes"]),
            node("DequantizeLinear", ["c_codes", *codes], ["c_values"]),
            node("QuantizeLinear", ["r", *codes], ["r_codes"]),
            node("DequantizeLinear", ["r_codes", *codes], ["r_values"]),
            node("Add", ["c_values", "r_values"], ["sum"]),
            node("QuantizeLinear", ["sum", *codes], ["y_codes"]),
            node("DequantizeLinear", ["y_codes", *codes], ["y"]),
        ],
        {"x": [1, 8, 6, 6], "r": [1, 8, 6, 6]},
        {"y": [1, 8, 6, 6]},
        {
            "w": normal(8, 8, 1, 1),
            "b": normal(8),
            "scale": np.array(0.05, np.float32),
            "zero": np.array(128, np.uint8),
        },
    )
    plan = lowered(model).plan
    assert plan is not None
    for step in plan.steps:
        buffers: dict[bool, set[Any]] = {True: set(), False: set()}
        parameters = plan.kernels[step.kernel].parameters
        for argument, parameter in zip(step.arguments, parameters, strict=True):
            if parameter.buffer:
                assert isinstance(argument, int)
                tensor = plan.tensors[argument]
                buffers[parameter.written].add((tensor.place, tensor.index))
        assert not buffers[True] & buffers[False]
    agree(model, {"x": normal(1, 8, 6, 6), "r": normal(1, 8, 6, 6)[..., ::-1].copy()})


@pytest.mark.slow
def test_a_build_is_verified_on_the_device_and_runs(
    needs_opencl: None, perceptron_file: Path, cache: Path, tmp_path: Path
) -> None:
    spec = find_model(str(perceptron_file))
    result = build_artifact(spec, target="opencl", cache=cache, output=tmp_path / "model")
    (level,) = result.manifest.levels
    assert level.target.api == "opencl"
    emulated = find_devices()["opencl"].devices[0].emulated
    assert level.executed is (Execution.EMULATED if emulated else Execution.NATIVE)
    assert level.verification.note is not None
    assert {case.output for case in level.verification.cases} == {"y", "z"}
    x = normal(7, 20)
    model = load(tmp_path / "model")
    joined = build_artifact(spec, target="x86-64-v3,opencl", cache=cache).path
    for each in (model, load(joined), load(joined, level="opencl")):
        outputs = each.run({"x": x})
        np.testing.assert_allclose(outputs["y"], model.run({"x": x})["y"], rtol=1e-4, atol=1e-5)
    assert load(joined, level="opencl").level.target.name == "opencl"
    if emulated:
        assert load(joined).level.target.name == "x86-64-v3"


@pytest.mark.slow
def test_an_artifact_without_a_device(
    needs_opencl: None, perceptron_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.runtime.devices import device_apis, opencl
    from assay.runtime.devices.device import DeviceApi, Found

    path = build_artifact(find_model(str(perceptron_file)), target="opencl", cache=cache).path

    def nothing() -> Found:
        return Found(reason="there is none", remedy="Plug one in.")

    absent = DeviceApi(name="opencl", description="OpenCL", find=nothing, open=opencl.API.open)
    monkeypatch.setitem(device_apis()._entries, "opencl", absent)
    with pytest.raises(DeviceError, match="there is none") as raised:
        load(path)
    assert raised.value.hint == "Plug one in."
    result = build_artifact(find_model(str(perceptron_file)), target="opencl", cache=cache)
    assert result.manifest.levels[0].executed is Execution.NEVER
