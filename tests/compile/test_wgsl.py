"""Models in WGSL, with dtypes that it lacks: on an adapter, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from assay.errors import InterfaceError, UnsupportedOperatorError
from assay.models.registry import find_model
from assay.runtime import load
from assay.runtime.devices import find_devices, open_device
from assay.runtime.drivers.plan_device import DeviceCalls
from assay.runtime.manifest import Execution

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def needs_vulkan() -> None:
    found = find_devices()["vulkan"]
    if not found.devices:
        pytest.skip(f"needs a Vulkan device, such as ci/emulator.sh installs: {found.reason}")


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def lowered(model: onnx.ModelProto, **limits: int) -> Lowered:
    from assay.compile.lower_device import lower_device

    dims = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    return lower_device(
        import_onnx(model),
        target=replace(gpu_targets()["vulkan"], **limits),
        profile=profiles()["release"],
        sizes=dict.fromkeys(dims, 4),
        maxima=dict.fromkeys(dims, 64),
    )


def agree(model: onnx.ModelProto, *cases: Arrays, **limits: int) -> DeviceCalls:
    """Compare what the adapter computes with ONNX Runtime; ``limits`` are other ones of the target."""
    from assay.compile.verify import reference_outputs

    expected = reference_outputs(model.SerializeToString(), cases)
    form = lowered(model, **limits)
    assert form.plan is not None
    assert all(weight.nbytes <= limits.get("largest_buffer", 1 << 40) for weight in form.weights.values())
    assert not {tensor.dtype for tensor in form.plan.tensors} & set(gpu_targets()["vulkan"].without)
    dtypes = [str(array.dtype) for array in expected[0].values()]
    weights = list(form.weights.values())
    calls = DeviceCalls(form.plan, open_device("vulkan"), form.executable.files, weights, dtypes)
    for inputs, wanted in zip(cases, expected, strict=True):
        actual = calls.call(list(inputs.values()))
        for array, (name, correct) in zip(actual, wanted.items(), strict=True):
            assert array.shape == correct.shape
            assert array.dtype == correct.dtype
            np.testing.assert_allclose(array, correct, rtol=1e-4, atol=1e-5, err_msg=name)
    return calls


def test_element_types(
    tvm: Any, needs_vulkan: None, element_types: tuple[onnx.ModelProto, dict[str, Any]]
) -> None:
    agree(*element_types).close()


def test_ids_masks_packed_weights_scans_and_extremes(
    tvm: Any, needs_vulkan: None, make_model: MakeModel
) -> None:
    random = np.random.default_rng(5)
    model = make_model(
        [
            node("Gather", ["table", "ids"], ["words"]),
            node("Equal", ["ids", "nothing"], ["padding"]),
            node("Unsqueeze", ["padding", "last"], ["column"]),
            node("Where", ["column", "lowest", "words"], ["masked"]),
            node("DequantizeLinear", ["codes", "scales", "zeros"], ["weight"], axis=0),
            node("MatMul", ["words", "weight"], ["product"]),
            node("QuantizeLinear", ["product", "step", "offset"], ["quantized"]),
            node("CumSum", ["ids", "axis"], ["sums"]),
            node("ArgMax", ["product"], ["place"], axis=-1),
            node("TopK", ["product", "three"], ["best", "places"]),
            node("Cast", ["product"], ["half"], to=onnx.TensorProto.FLOAT16),
            node("Mul", ["half", "half"], ["square"]),
            node("Cast", ["square"], ["single"], to=onnx.TensorProto.FLOAT),
        ],
        {"ids": (["n", 16], "int64")},
        {
            "padding": (["n", 16], "bool"),
            "masked": ["n", 16, 24],
            "product": ["n", 16, 33],
            "quantized": (["n", 16, 33], "int8"),
            "sums": (["n", 16], "int64"),
            "place": (["n", 16, 1], "int64"),
            "best": ["n", 16, 3],
            "places": (["n", 16, 3], "int64"),
        },
        {
            "table": normal(50, 24),
            "nothing": np.int64(0),
            "last": np.array([2]),
            "lowest": np.float32(-np.inf),
            "codes": random.integers(-128, 128, (24, 33)).astype(np.int8),
            "scales": (random.random(24) / 256).astype(np.float32),
            "zeros": random.integers(-9, 9, 24).astype(np.int8),
            "step": np.float32(0.1),
            "offset": np.int8(3),
            "axis": np.int64(1),
            "three": np.array([3]),
        },
    )
    cases = [{"ids": random.integers(0, 50, (n, 16)) * (random.random((n, 16)) > 0.2)} for n in (2, 5)]
    calls = agree(model, *cases)
    with pytest.raises(InterfaceError, match="do not fit the device's int32"):
        calls.call([np.full((2, 16), 2**40)])
    calls.close()


def test_what_wgsl_lacks_or_leaves_open(tvm: Any, needs_vulkan: None, make_model: MakeModel) -> None:
    model = make_model(
        [
            node("Pow", ["x", "two"], ["square"]),
            node("Pow", ["x", "odd"], ["power"]),
            node("IsNaN", ["holes"], ["nan"]),
            node("IsInf", ["holes"], ["inf"]),
            node("Atanh", ["unit"], ["angle"]),
            node("Softplus", ["x"], ["soft"]),
            node("Erf", ["x"], ["error"]),
            node("Mod", ["x", "two"], ["rest"], fmod=1),
        ],
        {"x": [3, 7], "holes": [6], "unit": [3, 7]},
        {
            **{name: [3, 7] for name in ("square", "power", "angle", "soft", "error", "rest")},
            "nan": ([6], "bool"),
            "inf": ([6], "bool"),
        },
        {"two": np.float32(2), "odd": np.float32(11)},
    )
    holes = np.array([np.nan, np.inf, -np.inf, 0, 1, -3e38], np.float32)
    agree(model, {"x": normal(3, 7), "holes": holes, "unit": np.tanh(normal(3, 7))}).close()


def test_operators_of_many_operands_are_split(tvm: Any, needs_vulkan: None, make_model: MakeModel) -> None:
    names = [f"x{i}" for i in range(19)]
    model = make_model(
        [
            node("Concat", names, ["joined"], axis=0),
            node("Tanh", ["joined"], ["y"]),
            node("Sum", names, ["sum"]),
        ],
        {name: ["n", 3] for name in names},
        {"y": [None, 3], "sum": ["n", 3]},
    )
    cases = [{name: normal(n, 3) + i for i, name in enumerate(names)} for n in (1, 4)]
    calls = agree(model, *cases)
    calls.close()
    kernels = lowered(model).plan.kernels
    assert max(sum(parameter.buffer for parameter in kernel.parameters) for kernel in kernels) <= 8


def test_large_weights_are_split(tvm: Any, needs_vulkan: None, make_model: MakeModel) -> None:
    model = make_model(
        [
            node("Gather", ["table", "ids"], ["words"]),
            node("MatMul", ["words", "weight"], ["product"]),
            node("Add", ["product", "bias"], ["y"]),
        ],
        {"ids": (["n", 5], "int64")},
        {"y": ["n", 5, 301]},
        {"table": normal(150, 24), "weight": normal(24, 301), "bias": normal(301)},
    )
    ids = np.array([[0, 63, 64, 65, 149], [127, 128, 1, 148, 42]])
    agree(model, {"ids": ids}, {"ids": ids[:1]}, largest_buffer=64 * 24 * 4).close()


def test_a_kernel_of_too_many_buffers_is_refused() -> None:
    from assay.compile.device_code.wgsl import check_kernel

    lines = [f"@group(0) @binding({i}) var<storage, read> x{i} : array<f32>;" for i in range(9)]
    target = gpu_targets()["webgpu"]
    with pytest.raises(UnsupportedOperatorError, match="takes 9 buffers; WebGPU promises 8"):
        check_kernel("k", "\n".join(lines), target)
    assert check_kernel("k", "\n".join(lines[:8]), target).shared_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["vulkan", "webgpu"])
def test_a_build_is_verified_on_the_adapter_and_runs(
    needs_vulkan: None, perceptron_file: Path, cache: Path, tmp_path: Path, target: str
) -> None:
    spec = find_model(str(perceptron_file))
    result = build_artifact(spec, target=target, cache=cache, output=tmp_path / "model")
    (level,) = result.manifest.levels
    (device, *_) = find_devices()[target].devices
    assert level.executed is (Execution.EMULATED if device.emulated else Execution.NATIVE)
    assert device.name in (level.verification.note or "")
    outputs = load(tmp_path / "model").run({"x": normal(7, 20)})
    expected = load(build_artifact(spec, cache=cache).path).run({"x": normal(7, 20)})
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-4, atol=1e-5)
