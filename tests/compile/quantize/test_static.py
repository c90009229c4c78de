"""Calibrated QDQ models: ranges by NumPy, and what the compiler makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.quantize.activations import observed, without_rounding
from assay.compile.quantize.apply import quantize
from assay.compile.quantize.prepare import find_plan
from assay.errors import UnknownNameError, UsageError


@pytest.fixture(scope="module")
def convolutional() -> onnx.ModelProto:
    """Two convolutions with a bias and a rectifier between, and a classifier."""
    generator = np.random.default_rng(3)
    node = onnx.helper.make_node

    def numbers(*shape: int) -> Any:
        return (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    weights = {
        "first": numbers(16, 3, 3, 3),
        "first_bias": numbers(16),
        "second": numbers(24, 16, 3, 3),
        "dense": numbers(24, 11).reshape(24, 11),
    }
    nodes = [
        node("Conv", ["x", "first", "first_bias"], ["a"], name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"], name="relu"),
        node("Conv", ["b", "second"], ["c"], name="conv2", strides=[2, 2]),
        node("GlobalAveragePool", ["c"], ["d"], name="pool"),
        node("Flatten", ["d"], ["e"], name="flatten"),
        node("MatMul", ["e", "dense"], ["y"], name="classifier"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "convolutional",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 12, 12])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 11])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture(scope="module")
def images() -> list[dict[str, Any]]:
    """Mostly small numbers, a few large ones."""
    generator = np.random.default_rng(4)
    return [{"x": generator.standard_t(3, (2, 3, 12, 12)).astype(np.float32)} for _ in range(6)]


def range_of(model: onnx.ModelProto, value: str, tensors: Any) -> tuple[float, float]:
    """The ends of the range in which an activation is quantized."""
    found = tensors(model)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] == value:
            scale, zero = float(found[node.input[1]]), int(found[node.input[2]])
            return -zero * scale, (255 - zero) * scale
    raise AssertionError(f"{value} is not quantized")


def test_minmax_spans_what_was_seen(convolutional: onnx.ModelProto, images: Any, tensors: Any) -> None:
    quantized = quantize(convolutional, find_plan("int8-static"), images).model
    seen = np.concatenate([image["x"].ravel() for image in images])
    low, high = range_of(quantized, "x", tensors)
    step = float(seen.max() - seen.min()) / 255
    assert low == pytest.approx(seen.min(), abs=step)
    assert high == pytest.approx(seen.max(), abs=step)
    inner = np.concatenate([values["b"].ravel() for values in observed(convolutional, ["b"], images)])
    # The quantizer has left out the Relu: the range does what it did.
    low, high = range_of(quantized, "b", tensors)
    assert (low, high) == (0, pytest.approx(inner.max(), rel=1e-3))


@pytest.mark.parametrize("calibrator", ["percentile", "entropy"])
def test_other_calibrators_clip_what_is_rare(
    calibrator: str, convolutional: onnx.ModelProto, tensors: Any
) -> None:
    generator = np.random.default_rng(8)
    images = [{"x": generator.standard_normal((2, 3, 12, 12)).astype(np.float32)} for _ in range(40)]
    for image in images[:2]:
        image["x"][0, 0, 0, 0] = 40
    widest = range_of(quantize(convolutional, find_plan("int8-static"), images).model, "x", tensors)
    plan = find_plan(f"int8-static-{calibrator}")
    low, high = range_of(quantize(convolutional, plan, images).model, "x", tensors)
    assert widest[0] <= low < 0 < high <= widest[1]
    seen = np.concatenate([image["x"].ravel() for image in images])
    # The zero point is a whole number, which moves the ends by up to a step.
    step = (high - low) / 255
    outside = np.mean((seen < low - step) | (seen > high + step))
    assert outside <= (1e-5 if calibrator == "percentile" else 1e-3)
    if calibrator == "entropy":
        assert high < 20


def test_weights_are_rounded_by_channel(convolutional: onnx.ModelProto, images: Any, tensors: Any) -> None:
    result = quantize(convolutional, find_plan("int8-static"), images)
    values = tensors(convolutional)["second"]
    codes = tensors(result.model)["second_quantized"]
    scales = np.abs(values).reshape(24, -1).max(1) / 63.5  # seven bits: -64 to 63
    error = codes.astype(np.float32) * scales[:, None, None, None] - values
    assert np.abs(error).max() < scales.max()
    stored = {tensor.name: tensor for tensor in result.tensors}
    assert {tensor.scheme for tensor in result.tensors} == {"int8-static"}
    assert stored["second"].bytes == values.size + 4 * 24
    assert stored["second"].error.sqnr is not None
    assert 30 < stored["second"].error.sqnr < 60


def test_it_runs_near_the_float_model_and_without_rounding_nearer(
    convolutional: onnx.ModelProto, images: Any, run: Any
) -> None:
    quantized = quantize(convolutional, find_plan("int8-static"), images).model
    exact = run(convolutional, x=images[0]["x"])["y"]
    found = run(quantized, x=images[0]["x"])["y"]
    unrounded = run(without_rounding(quantized), x=images[0]["x"])["y"]
    assert 0 < np.linalg.norm(found - exact) < 0.15 * np.linalg.norm(exact)
    assert 0 < np.linalg.norm(unrounded - exact) < 0.15 * np.linalg.norm(exact)
    assert np.any(unrounded != found)


def test_an_override_keeps_a_layer_in_float32(convolutional: onnx.ModelProto, images: Any) -> None:
    plan = find_plan("int8-static", ["conv1=f32"])
    stored = {tensor.name: tensor.scheme for tensor in quantize(convolutional, plan, images).tensors}
    assert stored == {"first": "f32", "second": "int8-static", "dense": "int8-static"}
    with pytest.raises(UsageError, match="can only be f32"):
        quantize(convolutional, find_plan("int8-static", ["conv1=f16"]), images)
    with pytest.raises(UnknownNameError, match="conv9"):
        quantize(convolutional, find_plan("int8-static", ["conv9=f32"]), images)


def test_products_of_a_transformer_stay_between_floats(language: onnx.ModelProto, run: Any, ids: Any) -> None:
    samples = [{"ids": np.random.default_rng(seed).integers(0, 60, 30)} for seed in range(4)]
    quantized = quantize(language, find_plan("int8-static"), samples).model
    outputs = {name for node in quantized.graph.node if node.op_type == "MatMul" for name in node.output}
    read = {node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    assert "logits" in outputs - read
    exact = run(language, ids=ids)["logits"]
    assert np.linalg.norm(run(quantized, ids=ids)["logits"] - exact) < 0.05 * np.linalg.norm(exact)


def test_it_needs_samples(convolutional: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="calibrate"):
        quantize(convolutional, find_plan("int8-static"))


def test_it_is_for_whole_models(convolutional: onnx.ModelProto, images: Any) -> None:
    with pytest.raises(UsageError, match="whole models"):
        quantize(convolutional, find_plan("f32", ["first=int8-static"]), images)
