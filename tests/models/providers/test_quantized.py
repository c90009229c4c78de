from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from assay.errors import ModelError
from assay.models.providers import OnnxFile, QuantFormat, Quantized
from assay.models.spec import DType, InputSpec, ModelSpec, Weights

MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture
def source(make_model: MakeModel, tmp_path: Path) -> ModelSpec:
    """A product with a constant, and one of two activations, under an operator set of old."""
    generator = np.random.default_rng(0)
    nodes = [
        make_node("MatMul", ["x", "w"], ["p"]),
        make_node("Transpose", ["p"], ["t"], perm=[1, 0]),
        make_node("MatMul", ["p", "t"], ["y"]),
    ]
    weights = {"w": generator.standard_normal((8, 6)).astype(np.float32)}
    path = tmp_path / "source.onnx"
    onnx.save(
        make_model(
            nodes, {"x": [4, 8]}, {"y": [4, 4]}, weights, opset_imports=[onnx.helper.make_opsetid("", 11)]
        ),
        path,
    )
    return ModelSpec(
        name="small",
        description="A small model.",
        provider=OnnxFile(path=path),
        inputs=(InputSpec(name="x", dtype=DType.FLOAT32, shape=(4, 8)),),
        weights=Weights.RANDOM,
        licence="Apache-2.0",
    )


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (QuantFormat.QDQ, "DequantizeLinear"),
        (QuantFormat.QOPERATOR, "QLinearMatMul"),
        (QuantFormat.DYNAMIC, "MatMulInteger"),
    ],
)
def test_products_with_weights_are_quantized(
    source: ModelSpec, tmp_path: Path, form: QuantFormat, expected: str
) -> None:
    found = operators(Quantized(source=source, operators=("MatMul",), format=form).onnx_path(tmp_path))
    assert expected in found
    # That of two activations is left, beside the quantized one's own in the QDQ form.
    assert found.count("MatMul") == (2 if form is QuantFormat.QDQ else 1)


def test_weights_are_int8_of_seven_bits_with_a_scale_a_channel(source: ModelSpec, tmp_path: Path) -> None:
    path = Quantized(source=source, operators=("MatMul",)).onnx_path(tmp_path)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    (weights,) = (t for t in tensors.values() if t.dtype == np.int8 and t.ndim == 2)
    assert np.abs(weights.astype(int)).max() <= 64
    assert any(t.dtype == np.float32 and t.shape == (6,) for t in tensors.values())


def test_products_of_activations_on_request(source: ModelSpec, tmp_path: Path) -> None:
    provider = Quantized(source=source, operators=("MatMul",), format=QuantFormat.QOPERATOR, products=True)
    assert "MatMul" not in operators(provider.onnx_path(tmp_path))


def test_the_same_bytes_every_time(
    source: ModelSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        contents.append(Quantized(source=source, operators=("MatMul",)).onnx_path(folder).read_bytes())
    assert contents[0] == contents[1]
    assert capsys.readouterr() == ("", "")


def test_what_the_quantizer_refuses_is_a_model_error(
    source: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", refuse)
    with pytest.raises(ModelError, match="cannot quantize small: no"):
        Quantized(source=source, operators=("MatMul",)).onnx_path(tmp_path)
