from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.importer import import_onnx
from assay.compile.lower import Lowered, lower
from assay.compile.profiles import profiles
from assay.compile.targets import targets


def lowered(model: onnx.ModelProto, **options: Any) -> Lowered:
    return lower(
        import_onnx(model),
        target=targets()["x86-64-v3"],
        profile=profiles()["release"],
        sizes={"batch": 9},
        maxima={"batch": 64},
        **options,
    )


def outputs(tvm: Any, code: Lowered, x: Any) -> list[Any]:
    machine = tvm.relax.VirtualMachine(code.executable, tvm.cpu())
    weights = tuple(tvm.runtime.tensor(array) for array in code.weights.values())
    return [result.numpy() for result in machine["main"](tvm.runtime.tensor(x), weights)]


@pytest.fixture
def x() -> Any:
    return np.random.default_rng(0).standard_normal((5, 20), dtype=np.float32)


def test_code_for_one_size_gives_the_same_numbers_from_the_same_weights(
    tvm: Any, needs_avx2: None, perceptron: onnx.ModelProto, x: Any
) -> None:
    every, one = lowered(perceptron), lowered(perceptron, bound={"batch": 5})
    for expected, actual in zip(outputs(tvm, every, x), outputs(tvm, one, x), strict=True):
        np.testing.assert_array_equal(actual, expected)
    contents = {array.tobytes() for array in every.weights.values()}
    assert {array.tobytes() for array in one.weights.values()} <= contents


def test_no_kernel_of_it_is_symbolic(tvm: Any, needs_avx2: None, perceptron: onnx.ModelProto) -> None:
    def symbolic(code: Lowered) -> bool:
        sizes = [
            size
            for kernel in code.kernels.values()
            for parameter in kernel.parameters
            for size in parameter.shape or ()
        ]
        return any(not isinstance(size, int) for size in sizes)

    assert symbolic(lowered(perceptron))
    assert not symbolic(lowered(perceptron, bound={"batch": 5}))


@pytest.mark.parametrize("bound", [{"rows": 7}, {"batch": 3}, {"rows": 7, "batch": 3}])
def test_some_of_several_sizes(tvm: Any, needs_avx2: None, bound: dict[str, int]) -> None:
    generator = np.random.default_rng(1)
    weight = generator.standard_normal((20, 20), dtype=np.float32)
    declare = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["product"]),
            onnx.helper.make_node("Add", ["x", "product"], ["y"]),
        ],
        "residual",
        [declare("x", onnx.TensorProto.FLOAT, ["batch", "rows", 20])],
        [declare("y", onnx.TensorProto.FLOAT, ["batch", "rows", 20])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    code = lower(
        import_onnx(model),
        target=targets()["x86-64-v3"],
        profile=profiles()["release"],
        sizes={"batch": 2, "rows": 8},
        maxima={"batch": 4, "rows": 16},
        bound=bound,
    )
    given = generator.standard_normal((3, 7, 20), dtype=np.float32)
    machine = tvm.relax.VirtualMachine(code.executable, tvm.cpu())
    weights = tuple(tvm.runtime.tensor(array) for array in code.weights.values())
    result = machine["main"](tvm.runtime.tensor(given), weights)
    found = (result[0] if isinstance(result, (list, tuple, tvm.ir.Array)) else result).numpy()
    np.testing.assert_allclose(found, given + given @ weight, rtol=1e-4, atol=1e-5)
