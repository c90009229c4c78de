"""Quantized models in both forms that ONNX Runtime's quantizer writes, beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from assay.compile.verify import reference_outputs
from assay.errors import UnsupportedOperatorError
from assay.models.export import export_canonical
from assay.models.file_spec import spec_from_file

MakeModel = Callable[..., onnx.ModelProto]


def normal(*shape: int, scale: float = 1.0) -> Any:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def network(make_model: MakeModel) -> onnx.ModelProto:
    """Convolutions (plain, depthwise, in groups), pooling, a residual, a concatenation, a dense layer."""
    weights = {
        "w1": normal(16, 3, 3, 3, scale=0.2), "b1": normal(16),
        "w2": normal(16, 16, 3, 3, scale=0.1), "b2": normal(16),
        "w3": normal(16, 1, 3, 3, scale=0.3), "b3": normal(16),
        "w4": normal(24, 8, 1, 1, scale=0.3), "w5": normal(10, 40, scale=0.3), "b5": normal(10),
    }  # fmt: skip
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", strides=[2, 2], **same),
        make_node("Relu", ["c1"], ["r1"]),
        make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], **same),
        make_node("Conv", ["p1", "w2", "b2"], ["c2"], name="second", **same),
        make_node("Add", ["c2", "p1"], ["a1"], name="residual"),
        make_node("Relu", ["a1"], ["r2"]),
        make_node("Conv", ["r2", "w3", "b3"], ["c3"], name="depthwise", group=16, **same),
        make_node("Sigmoid", ["c3"], ["s3"]),
        make_node("Conv", ["r2", "w4"], ["c4"], name="groups", group=2),
        make_node("Concat", ["s3", "c4"], ["cc"], axis=1),
        make_node("GlobalAveragePool", ["cc"], ["g"]),
        make_node("Flatten", ["g"], ["f"]),
        make_node("Gemm", ["f", "w5", "b5"], ["y"], name="dense", transB=1),
    ]
    return make_model(nodes, {"x": [1, 3, 30, 30]}, {"y": [1, 10]}, weights, opset=17)


@pytest.fixture(scope="module")
def perceptron_of_tokens(make_model: MakeModel) -> onnx.ModelProto:
    """Two matrix products of a symbolic number of rows, with GELU's parts and a residual between."""
    weights = {
        "w1": normal(24, 40, scale=0.2), "b1": normal(40), "w2": normal(40, 24, scale=0.2), "b2": normal(24),
    }  # fmt: skip
    nodes = [
        make_node("MatMul", ["x", "w1"], ["m1"], name="up"),
        make_node("Add", ["m1", "b1"], ["h1"]),
        make_node("Tanh", ["h1"], ["t1"]),
        make_node("MatMul", ["t1", "w2"], ["m2"], name="down"),
        make_node("Add", ["m2", "b2"], ["h2"]),
        make_node("Add", ["h2", "x"], ["y"]),
    ]
    return make_model(nodes, {"x": [1, "rows", 24]}, {"y": [1, "rows", 24]}, weights, opset=17)


class Samples:
    """Calibration data: a few arrays of the one input."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.arrays = [normal(*shape, 1)[..., 0] * factor for factor in (1.0, 1.2)]

    def get_next(self) -> dict[str, Any] | None:
        return {"x": self.arrays.pop()} if self.arrays else None


def quantized(
    model: onnx.ModelProto, folder: Path, shape: tuple[int, ...], form: str, **options: Any
) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    source, path = folder / "float.onnx", folder / f"{form}.onnx"
    onnx.save(model, source)
    common = {"weight_type": QuantType.QInt8, "reduce_range": True, **options}
    if form == "dynamic":
        quantize_dynamic(source, path, **common)
    else:
        quantize_static(source, path, Samples(shape), quant_format=QuantFormat[form], **common)
    return onnx.load(path)


def check(
    model: onnx.ModelProto, folder: Path, run_compiled: Any, x: Any, tolerance: float = 1e-5
) -> onnx.ModelProto:
    """Compare the compiled canonical form with ONNX Runtime on the model as it was; gives that form."""
    path = folder / "quantized.onnx"
    onnx.save(model, path)
    canonical = onnx.load(export_canonical(spec_from_file(path), folder / "canonical").path)
    (expected,) = reference_outputs(model.SerializeToString(), [{"x": x}])
    actual = run_compiled(canonical, {"x": x})
    np.testing.assert_allclose(actual["y"], expected["y"], rtol=0, atol=tolerance)
    return canonical


@pytest.mark.parametrize(
    ("form", "activations", "per_channel"),
    [
        ("QDQ", "QUInt8", True),
        ("QOperator", "QInt8", False),
        pytest.param("QDQ", "QInt8", False, marks=pytest.mark.slow),
        pytest.param("QOperator", "QUInt8", True, marks=pytest.mark.slow),
    ],
)
def test_network(
    network: onnx.ModelProto,
    run_compiled: Any,
    tmp_path: Path,
    form: str,
    activations: str,
    *,
    per_channel: bool,
) -> None:
    from onnxruntime.quantization import QuantType

    shape = (1, 3, 30, 30)
    model = quantized(
        network, tmp_path, shape, form, per_channel=per_channel, activation_type=QuantType[activations]
    )
    check(model, tmp_path, run_compiled, normal(*shape, 1)[..., 0])


def test_eight_bit_weights_that_could_saturate(
    network: onnx.ModelProto, run_compiled: Any, tmp_path: Path
) -> None:
    """ONNX Runtime's sums of eight-bit weights saturate without VNNI; those of unsigned ones do not."""
    from onnxruntime.quantization import QuantType

    shape = (1, 3, 30, 30)
    model = quantized(
        network,
        tmp_path,
        shape,
        "QDQ",
        reduce_range=False,
        weight_type=QuantType.QUInt8,
        activation_type=QuantType.QUInt8,
    )
    check(model, tmp_path, run_compiled, normal(*shape, 1)[..., 0])


@pytest.mark.parametrize("form", ["QDQ", pytest.param("QOperator", marks=pytest.mark.slow), "dynamic"])
def test_matrix_products(
    perceptron_of_tokens: onnx.ModelProto, run_compiled: Any, tmp_path: Path, form: str
) -> None:
    model = quantized(perceptron_of_tokens, tmp_path, (1, 7, 24), form, per_channel=True)
    # A tanh that differs in its last bit may round to the next integer, a step of 0.01.
    check(model, tmp_path, run_compiled, normal(1, 9, 24), tolerance=0.05)


@pytest.mark.slow
def test_convolutions_quantized_at_run_time(
    network: onnx.ModelProto, run_compiled: Any, tmp_path: Path
) -> None:
    model = quantized(network, tmp_path, (), "dynamic")
    assert "ConvInteger" in {node.op_type for node in model.graph.node}
    canonical = check(model, tmp_path, run_compiled, normal(1, 3, 30, 30), tolerance=0.05)
    assert "ConvInteger" not in {node.op_type for node in canonical.graph.node}


def lowered(model: onnx.ModelProto) -> Any:
    from assay.compile.importer import import_onnx
    from assay.compile.lower import lower
    from assay.compile.profiles import profiles
    from assay.compile.targets import targets

    target, profile = targets()["x86-64-v3"], profiles()["release"]
    return lower(import_onnx(model), target=target, profile=profile, sizes={}, maxima={})


def test_weights_and_activations_stay_in_eight_bits(
    network: onnx.ModelProto, tmp_path: Path, tvm: Any
) -> None:
    model = quantized(network, tmp_path, (1, 3, 30, 30), "QDQ", per_channel=True)
    weights = lowered(model).weights
    large = {str(array.dtype) for array in weights.values() if array.size >= 16 * 16}
    assert large == {"int8"}


def test_a_quantized_operator_without_translation_is_named(make_model: MakeModel, tmp_path: Path) -> None:
    node = make_node(
        "QLinearReduceMean", ["x", "s", "z", "s", "z"], ["y"], name="mean", domain="com.microsoft", axes=[1]
    )
    model = make_model(
        [node], {"x": ([2, 3], "uint8")}, {"y": ([2, 1], "uint8")}, {"s": np.float32(1), "z": np.uint8(0)}
    )
    with pytest.raises(UnsupportedOperatorError, match=r"QLinearReduceMean \(node 'mean'\)"):
        lowered(model)
