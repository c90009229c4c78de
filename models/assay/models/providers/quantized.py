"""Another model in 8-bit integers, as ONNX Runtime's quantizer makes it."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import MissingDependencyError, ModelError
from assay.models.inputs import make_inputs
from assay.models.spec import Array, ModelSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["QuantFormat", "Quantized", "activation_products", "quiet_quantizer"]

# DequantizeLinear takes one scale a channel from this operator set on; the version that is written.
_FIRST_OPSET, _OPSET = 13, 17


class QuantFormat(StrEnum):
    """How the quantized graph is written down."""

    QDQ = "QDQ"  # float operators between DequantizeLinear and QuantizeLinear
    QOPERATOR = "QOperator"  # QLinearConv and its like
    DYNAMIC = "dynamic"  # MatMulInteger and its like: activations are quantized at run time


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """``source`` with the operators of the types ``operators`` quantized.

    Weights become int8, one scale a channel, symmetric, of seven bits: with eight, ONNX Runtime's own sums
    saturate on CPUs without VNNI. Activations become uint8, whose ranges come from ``samples`` of the
    source's representative inputs, seeded; with the format ``DYNAMIC`` they are found at run time. Matrix
    products of two activations stay in float32 unless ``products``; an output of the types in
    ``float_outputs`` is not quantized for its own sake.
    """

    source: ModelSpec = field(repr=False)
    operators: tuple[str, ...]
    format: QuantFormat = QuantFormat.QDQ
    float_outputs: tuple[str, ...] = ()
    products: bool = False
    samples: int = 8

    def onnx_path(self, folder: Path) -> Path:
        """Path of the quantized model below ``folder``.

        Raises what the source raises, MissingDependencyError without ONNX Runtime, ModelError where its
        quantizer refuses the model.
        """
        try:
            from onnxruntime.quantization import QuantFormat as Format
            from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
        except ImportError as error:
            raise MissingDependencyError(error.name or "onnxruntime", "compile") from None
        from assay.models.export.canonical import export_canonical

        original = folder / "original"
        canonical = export_canonical(self.source, original)
        prepared = folder / "prepared.onnx"
        excluded = self._prepare(canonical.path, prepared)
        path = folder / "quantized.onnx"
        options: dict[str, Any] = {
            "op_types_to_quantize": list(self.operators),
            "nodes_to_exclude": excluded,
            "per_channel": True,
            "reduce_range": True,
            "weight_type": QuantType.QInt8,
        }
        try:
            with quiet_quantizer():
                if self.format is QuantFormat.DYNAMIC:
                    quantize_dynamic(prepared, path, **options)
                else:
                    quantize_static(
                        prepared,
                        path,
                        _Samples(canonical.spec, self.samples),
                        quant_format=Format[self.format.value],
                        activation_type=QuantType.QUInt8,
                        extra_options={"OpTypesToExcludeOutputQuantization": list(self.float_outputs)},
                        **options,
                    )
        except Exception as error:  # The quantizer's errors have no common base but Exception.
            raise ModelError(f"ONNX Runtime cannot quantize {self.source.name}: {error}") from error
        return path

    def _prepare(self, source: Path, target: Path) -> list[str]:
        """Write ``source`` with a recent operator set and a name for each node; nodes to leave in float32."""
        import onnx

        model = onnx.load_model(source)
        version = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        if version < _FIRST_OPSET:
            model = onnx.version_converter.convert_version(model, _OPSET)
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        onnx.save_model(model, target)
        return [] if self.products else list(activation_products(model.graph))


def activation_products(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the matrix products neither of whose operands is a constant."""
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and not constants & set(node.input):
            yield node.name


class _Samples:
    """Inputs to find ranges with, one set after the other, as ONNX Runtime's calibration reads them."""

    def __init__(self, spec: ModelSpec, count: int) -> None:
        self._spec, self._count, self._next = spec, count, 0

    def get_next(self) -> dict[str, Array] | None:
        """The next set of inputs by name, or None at the end."""
        if self._next == self._count:
            return None
        self._next += 1
        # Verification runs on the seeds from 0 on: these are others.
        return make_inputs(self._spec, seed=1000 + self._next)

    def rewind(self) -> None:
        """Start again."""
        self._next = 0

    def __iter__(self) -> _Samples:
        return self

    def __next__(self) -> dict[str, Array]:
        result = self.get_next()
        if result is None:
            raise StopIteration
        return result


@contextlib.contextmanager
def quiet_quantizer() -> Iterator[None]:
    """The quantizer prints and warns at length of what we chose on purpose."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
