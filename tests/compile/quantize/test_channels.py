"""Products whose activations are quantized row by row: the numbers of NumPy and of ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.quantize.activations import without_rounding
from assay.compile.quantize.apply import quantize
from assay.compile.quantize.channels import quantize_channels, smoothing_factors
from assay.compile.quantize.dequantize import dequantize_model
from assay.compile.quantize.prepare import find_plan
from assay.errors import UsageError


def test_codes_are_the_nearest_on_a_grid_that_holds_the_largest_weight_of_a_row() -> None:
    generator = np.random.default_rng(0)
    values = (generator.standard_normal((5, 40)) * np.array([[1e-4], [1], [30], [0], [1]])).astype(np.float32)
    found = quantize_channels(values)
    assert found.codes.dtype == np.int8
    assert np.abs(found.codes).max(1).tolist() == [64, 64, 64, 0, 64]
    assert np.all(np.abs(found.dequantized() - values) <= 0.5001 * found.scales[:, None])


def test_pairs_of_products_stay_within_16_bits() -> None:
    found = quantize_channels(np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32))
    sums = found.codes[:, :-1].astype(np.int64) + found.codes[:, 1:]
    assert np.abs(sums).max() * 255 < 2**15


def by_hand(x: Any, weight: Any) -> Any:
    """x @ weight with x [rows, K] quantized to whole numbers up to 127, and weight [K, N] to 64."""
    largest = np.abs(x).max(1, keepdims=True)
    q = np.rint(x * (np.float32(127) / np.maximum(largest, np.float32(1e-30)))).astype(np.int64)
    scales = np.abs(weight).max(0) / np.float32(64)
    codes = np.rint(weight / scales).astype(np.int64)
    return (q @ codes) * (largest / np.float32(127)).astype(np.float64) * scales


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_the_model_computes_what_numpy_does(opset: int, run: Any) -> None:
    generator = np.random.default_rng(opset)
    first, second = (generator.standard_normal((48, n)).astype(np.float32) for n in (32, 20))
    bias = generator.standard_normal(20).astype(np.float32)
    node = onnx.helper.make_node
    value = onnx.helper.make_tensor_value_info
    weights = {"first": first, "second": second, "bias": bias}
    graph = onnx.helper.make_graph(
        [
            node("MatMul", ["x", "first"], ["y"], name="first"),
            node("Gemm", ["x", "second", "bias"], ["z"], name="second"),
        ],
        "two",
        [value("x", onnx.TensorProto.FLOAT, ["rows", 48])],
        [value("y", onnx.TensorProto.FLOAT, ["rows", 32]), value("z", onnx.TensorProto.FLOAT, ["rows", 20])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    x = generator.standard_normal((7, 48)).astype(np.float32)
    x[2] = 0
    x[3] *= 1e-6
    x[4, 5] = 1000
    result = quantize(model, find_plan("int8-dynamic"))
    found = run(result.model, x=x)
    np.testing.assert_allclose(found["y"], by_hand(x, first), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["z"], by_hand(x, second) + bias, rtol=1e-5, atol=1e-5)
    operators = [each.op_type for each in result.model.graph.node]
    assert operators.count("QuantizeLinear") == 1  # of one x for both
    assert [(t.scheme, t.bytes) for t in result.tensors] == [
        ("int8-dynamic", 48 * 32 + 4 * 32),
        ("int8-dynamic", 48 * 20 + 4 * 20),
    ]
    # Without rounding, only the weights' own error is left.
    unrounded, exact = (
        run(without_rounding(result.model), x=x)["y"],
        x @ quantize_channels(first.T).dequantized().T,
    )
    np.testing.assert_allclose(unrounded, exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())
    np.testing.assert_allclose(run(dequantize_model(result.model), x=x)["y"], unrounded, rtol=1e-4, atol=1e-3)


def test_tables_are_stored_in_groups_and_convolutions_in_float32(language: onnx.ModelProto) -> None:
    result = quantize(language, find_plan("int8-dynamic"))
    stored = {tensor.name: (tensor.scheme, tensor.note) for tensor in result.tensors}
    assert stored == {
        "table": ("int8", "a table"),
        "up": ("int8-dynamic", None),
        "down": ("int8-dynamic", None),
    }


def test_it_is_no_scheme_for_a_table_alone(language: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="table"):
        quantize(language, find_plan("f32", ["table=int8-dynamic"]))


def test_it_is_near_the_float_model(language: onnx.ModelProto, run: Any, ids: Any) -> None:
    exact = run(language, ids=ids)["logits"]
    found = run(quantize(language, find_plan("int8-dynamic")).model, ids=ids)["logits"]
    assert 0 < np.linalg.norm(found - exact) < 0.03 * np.linalg.norm(exact)


def test_smoothing_makes_activations_and_weights_equally_wide() -> None:
    generator = np.random.default_rng(5)
    weights = [generator.standard_normal((n, 30)).astype(np.float32) for n in (8, 12)]
    largest = generator.uniform(0.1, 20, 30).astype(np.float32)
    factors = smoothing_factors(largest, weights)
    assert np.exp(np.log(factors).mean()) == pytest.approx(1, rel=1e-5)
    widest = np.abs(np.concatenate(weights) * factors).max(0)
    ratio = (largest / factors) / widest
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    np.testing.assert_array_equal(smoothing_factors(np.zeros(30, np.float32), weights), np.ones(30))


def test_smoothing_helps_where_a_column_is_large(run: Any) -> None:
    generator = np.random.default_rng(6)
    weights = {n: generator.standard_normal((48, w)).astype(np.float32) for n, w in (("a", 24), ("b", 16))}
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", name], [f"y{name}"], name=name) for name in weights],
        "two",
        [value("x", onnx.TensorProto.FLOAT, ["rows", 48])],
        [value(f"y{name}", onnx.TensorProto.FLOAT, ["rows", None]) for name in weights],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)

    def sample() -> dict[str, Any]:
        x = generator.standard_normal((32, 48)).astype(np.float32)
        x[:, 7] *= 60
        return {"x": x}

    plan = find_plan("int8-dynamic-smooth")
    with pytest.raises(UsageError, match="calibrate"):
        quantize(model, plan)
    smooth = quantize(model, plan, [sample() for _ in range(4)])
    plain = quantize(model, find_plan("int8-dynamic"))
    inputs = sample()
    for name, array in weights.items():
        exact = inputs["x"] @ array
        errors = [np.linalg.norm(run(m.model, **inputs)[f"y{name}"] - exact) for m in (smooth, plain)]
        assert 0 < 2 * errors[0] < errors[1]
    operators = [each.op_type for each in smooth.model.graph.node]
    assert operators.count("QuantizeLinear") == 1
    assert all(tensor.error.sqnr is not None and tensor.error.sqnr > 25 for tensor in smooth.tensors)
    restored = run(dequantize_model(smooth.model), **inputs)["ya"]
    np.testing.assert_allclose(restored, inputs["x"] @ weights["a"], atol=0.03 * np.abs(restored).max())
