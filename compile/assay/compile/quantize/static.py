"""Calibrated static int8: ranges by our calibrators, QDQ as ONNX Runtime's quantizer writes it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.compile.quantize.activations import observed
from assay.compile.quantize.calibrators import find_ranges, histograms
from assay.compile.quantize.dequantize import dequantize_model
from assay.compile.quantize.sites import Kind, Weight, find_weights
from assay.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

    from assay.compile.schemes.int8_static import Calibrator
    from assay.models.spec import Array

__all__ = ["quantize_static_model", "static_values"]

# DequantizeLinear takes one scale a channel from this operator set on; the version that is written.
_FIRST_OPSET, _OPSET = 13, 17
# Integers pass through these between convolutions; products of transformers stand alone between float
# operators, so that their results are not quantized for their own sake.
_CONVOLUTIONAL = (
    *("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "Concat", "Reshape", "Flatten"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
)
_PRODUCTS = ("Conv", "Gemm", "MatMul")


def quantize_static_model(
    model: onnx.ModelProto,
    samples: Sequence[Mapping[str, Array]],
    calibrator: Calibrator,
    excluded: Iterable[str] = (),
) -> onnx.ModelProto:
    """QDQ of ``model``, which stays as it is; ``excluded``: names of nodes that stay in float32.

    Weights are int8 of seven bits, symmetric, one scale a channel (with eight, ONNX Runtime's own sums
    saturate on CPUs without VNNI); activations uint8. Products of two activations stay in float32. Raises
    ModelError where ONNX Runtime's quantizer refuses the model.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    from assay.models.export.weights import save
    from assay.models.providers.quantized import activation_products, quiet_quantizer

    prepared = _prepared(model)
    ranges = _ranges(prepared, samples, calibrator)
    convolutional = _is_convolutional(prepared)
    kept = {*excluded, *activation_products(prepared.graph)}
    with tempfile.TemporaryDirectory(prefix="assay-static-") as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        save(prepared, source, "source.bin")
        try:
            with quiet_quantizer():
                quantizer = QDQQuantizer(
                    load_model_with_shape_infer(source),
                    True,  # one scale a channel
                    True,  # weights of seven bits
                    QuantType.QInt8,
                    QuantType.QUInt8,
                    TensorsData(
                        CalibrationMethod.MinMax,
                        {
                            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
                            for name, (low, high) in ranges.items()
                        },
                    ),
                    [],
                    sorted(kept),
                    list(_CONVOLUTIONAL if convolutional else _PRODUCTS),
                    {"OpTypesToExcludeOutputQuantization": [] if convolutional else list(_PRODUCTS)},
                )
                quantizer.quantize_model()
                quantizer.model.save_model_to_file(str(target))
        except Exception as error:  # The quantizer's errors have no common base but Exception.
            raise ModelError(f"ONNX Runtime cannot quantize the model: {error}") from error
        return onnx.load_model(target)


def _ranges(
    model: onnx.ModelProto, samples: Sequence[Mapping[str, Array]], calibrator: Calibrator
) -> dict[str, tuple[float, float]]:
    """The range of each floating-point value of the graph."""
    names = [value.name for value in model.graph.input if value.name in samples[0]]
    names += [name for node in model.graph.node for name in node.output if name]
    passes = (observed(model, names, samples) for _ in range(2))
    return find_ranges(histograms(*passes), calibrator.value)


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a recent operator set, with a name for each node."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    version = next(entry.version for entry in copy.opset_import if entry.domain in ("", "ai.onnx"))
    if version < _FIRST_OPSET:
        copy = onnx.version_converter.convert_version(copy, _OPSET)
    for index, node in enumerate(copy.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return copy


def _is_convolutional(model: onnx.ModelProto) -> bool:
    """Whether convolutions do most of what weights do."""
    kinds = [reader.kind for weight in find_weights(model) for reader in weight.readers]
    return kinds.count(Kind.CONVOLUTION) > kinds.count(Kind.PRODUCT)


def static_values(before: Sequence[Weight], after: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """What the integer weights of a QDQ model stand for, by the name of the weight, in its shape."""
    import onnx

    plain = dequantize_model(after)
    integers = {node.input[0] for node in after.graph.node if node.op_type == "DequantizeLinear"}
    stored: dict[str, Any] = {tensor.name: tensor for tensor in plain.graph.initializer}
    found = {}
    for weight in before:
        name = f"{weight.name}_quantized"
        if name in integers and name in stored:
            values: npt.NDArray[np.float32] = onnx.numpy_helper.to_array(stored[name])
            found[weight.name] = values.T if weight.transposed else values
    return found
