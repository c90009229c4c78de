"""Launch plans for the CPU: what they compute, and what they cannot say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.profiles import profiles
from assay.compile.targets import targets
from assay.compile.targets.target import Launcher
from assay.errors import InterfaceError
from assay.runtime.drivers.plan_cpu import CpuCalls, KernelLibrary
from assay.runtime.memory import empty_aligned
from assay.runtime.plan import decode_plan, encode_plan

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def aligned(array: Any) -> Any:
    copy = empty_aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


@pytest.fixture
def calls(tvm: Any, needs_avx2: None, tmp_path: Path) -> Callable[[onnx.ModelProto], CpuCalls]:
    """Compile a model to a plan and a library, and open both."""
    from assay.compile.emit import emit_kernels
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower

    def compile_model(model: onnx.ModelProto) -> CpuCalls:
        dims = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
        target = replace(targets()["x86-64-v3"], launcher=Launcher.PLAN)
        lowered = lower(
            import_onnx(model),
            target=target,
            profile=profiles()["release"],
            sizes=dict.fromkeys(dims, 4),
            maxima=dict.fromkeys(dims, 64),
        )
        assert lowered.plan is not None
        plan = decode_plan(encode_plan(lowered.plan))
        library = emit_kernels(lowered.executable, [kernel.name for kernel in plan.kernels], target, tmp_path)
        weights = [aligned(np.ascontiguousarray(array)) for array in lowered.weights.values()]
        return CpuCalls(plan, KernelLibrary(str(library), plan), weights)

    return compile_model


def agree(ready: CpuCalls, model: onnx.ModelProto, inputs: dict[str, Any]) -> None:
    from assay.compile.verify import reference_outputs

    (expected,) = reference_outputs(model.SerializeToString(), [inputs])
    actual = ready.call([aligned(array) for array in inputs.values()])
    for array, (name, wanted) in zip(actual, expected.items(), strict=True):
        assert array.dtype == wanted.dtype
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_model_with_a_symbolic_batch(
    calls: Callable[[onnx.ModelProto], CpuCalls], perceptron: onnx.ModelProto
) -> None:
    ready = calls(perceptron)
    for batch in (1, 7, 64, 7):
        agree(ready, perceptron, {"x": normal(batch, 20)})
    with pytest.raises(InterfaceError):
        ready.call([aligned(normal(7, 21))])


def test_outputs_that_are_inputs_weights_views_and_intermediate_values(
    calls: Callable[[onnx.ModelProto], CpuCalls], make_model: MakeModel
) -> None:
    model = make_model(
        [
            node("Identity", ["x"], ["same"]),
            node("Identity", ["w"], ["weight"]),
            node("Relu", ["x"], ["h"]),
            node("Reshape", ["h", "flat"], ["view"]),
            node("Softmax", ["h"], ["y"]),
            node("Shape", ["h"], ["s"]),
            node("Cast", ["s"], ["sizes"], to=onnx.TensorProto.FLOAT),
        ],
        {"x": ["n", 6]},
        {"y": ["n", 6], "view": [None], "same": ["n", 6], "weight": [40], "sizes": [2]},
        {"w": normal(40), "flat": np.array([-1])},
    )
    ready = calls(model)
    for n in (3, 9):
        agree(ready, model, {"x": normal(n, 6)})


def test_the_plan_of_a_convolution_needs_a_workspace_and_threads(
    calls: Callable[[onnx.ModelProto], CpuCalls], make_model: MakeModel
) -> None:
    model = make_model(
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["r"]),
            node("GlobalAveragePool", ["r"], ["y"]),
        ],
        {"x": ["n", 16, 20, 20]},
        {"y": ["n", 32, 1, 1]},
        {"w": normal(32, 16, 3, 3), "b": normal(32)},
    )
    agree(calls(model), model, {"x": normal(2, 16, 20, 20)})
