from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

KINDS = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}


def stored(name: str, values: Any, dtype: str) -> Any:
    if dtype == "float16":
        return numpy_helper.from_array(values.astype(np.float16), name)
    bits = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    return helper.make_tensor(name, KINDS[dtype], values.shape, bits.tobytes(), raw=True)


def lowered(nodes: list[Any], inputs: Any, weights: list[Any], columns: int, target: str) -> Any:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles
    from assay.compile.targets import find_target

    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["tokens", columns])
    graph = helper.make_graph(nodes, "test", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return lower(
        import_onnx(model), target=find_target(target), profile=profiles()["release"],
        sizes={"tokens": 16}, maxima={"tokens": 64},
    )  # fmt: skip


def run(result: Any, x: Any) -> Any:
    from assay.compile.tvm_import import import_tvm

    tvm = import_tvm()
    from tvm import relax

    machine = relax.VirtualMachine(result.executable, tvm.cpu())
    weights = tuple(tvm.runtime.tensor(array) for array in result.weights.values())
    return machine["main"](tvm.runtime.tensor(x), weights).numpy()


def narrowed(values: Any, dtype: str) -> Any:
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    return values.astype(kind).astype(np.float64)


@pytest.mark.parametrize("turned", [False, True], ids=["[K, N]", "[N, K]"])
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_products_stay_in_16_bits(dtype: str, target: str, turned: bool, needs_avx2: None) -> None:
    """Panels of 16 bits in the artifact, float32 sums; the smallest float16 and zeros among the weights."""
    generator = np.random.default_rng(1)
    weight = generator.standard_normal((52, 35)) * 0.1
    weight[0, :3] = (6e-8, -0.0, 0.0)
    bias = generator.standard_normal(35).astype(np.float32)
    nodes = [helper.make_node("Cast", ["w"], ["wide"], to=onnx.TensorProto.FLOAT)]
    if turned:
        nodes.append(helper.make_node("Transpose", ["wide"], ["columns"], perm=[1, 0]))
    nodes.append(helper.make_node("MatMul", ["x", "columns" if turned else "wide"], ["product"]))
    nodes.append(helper.make_node("Add", ["product", "b"], ["y"]))
    weights = [stored("w", weight.T if turned else weight, dtype), numpy_helper.from_array(bias, "b")]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["tokens", 52])]
    result = lowered(nodes, inputs, weights, 35, target)
    assert [array.dtype for array in result.weights.values() if array.ndim == 3] == [np.uint16]
    for rows in (1, 13):
        x = generator.standard_normal((rows, 52)).astype(np.float32)
        expected = x.astype(np.float64) @ narrowed(weight, dtype) + bias
        np.testing.assert_allclose(run(result, x), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v2"])
def test_rows_of_a_table_are_widened(target: str, needs_avx2: None) -> None:
    table = np.random.default_rng(2).standard_normal((20, 24))
    table[3, :4] = (6e-8, -6e-5, 65504, -0.0)
    nodes = [
        helper.make_node("Gather", ["w", "ids"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["tokens"])]
    result = lowered(nodes, inputs, [stored("w", table, "float16")], 24, target)
    ids = np.array([3, 0, 19, 3], np.int64)
    np.testing.assert_array_equal(run(result, ids), narrowed(table, "float16")[ids])


def test_weights_that_something_else_reads_are_widened_at_build_time(needs_avx2: None) -> None:
    weight = np.random.default_rng(3).standard_normal((16, 16))
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["product"]),
        helper.make_node("ReduceSum", ["wide"], ["total"], keepdims=0),
        helper.make_node("Add", ["product", "total"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["tokens", 16])]
    result = lowered(nodes, inputs, [stored("w", weight, "float16")], 16, "x86-64-v3")
    wide = narrowed(weight, "float16")
    x = np.random.default_rng(4).standard_normal((3, 16)).astype(np.float32)
    np.testing.assert_allclose(run(result, x), x @ wide + wide.sum(), rtol=2e-5, atol=2e-5)
