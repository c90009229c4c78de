"""Matrices with a scale for each row, and products whose left operand gets one for each row at run time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = ["LARGEST_CODE", "ChannelQuantized", "RowProducts", "quantize_channels", "smoothing_factors"]

# The sum of two products of such a code with any of 8 bits without a sign is at most 2 * 64 * 255 = 32640:
# instructions that add pairs in 16 bits (pmaddubsw) do not saturate.
LARGEST_CODE = 64
# Activations become whole numbers from -127 to 127, stored 128 higher.
_LARGEST_ACTIVATION, _ZERO_POINT = 127.0, 128
# In place of the largest magnitude of a row of zeros. Its inverse is a number of float32.
_TINY = 1e-30
# Of the largest: columns that calibration saw smaller may not stay so.
_NARROWEST = np.float32(1e-3)
# From this operator set on the axes of ReduceMax are an input.
_AXES_INPUT_OPSET = 18


@dataclass(frozen=True, kw_only=True)
class ChannelQuantized:
    """A matrix [outputs, inputs] as int8 ``codes`` from -64 to 64, times float32 ``scales`` [outputs].

    Where there are ``factors`` [inputs], the weights were multiplied by them before they became codes, and
    activations are divided by them.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    factors: npt.NDArray[np.float32] | None = None

    def dequantized(self) -> npt.NDArray[np.float32]:
        """The numbers that the codes stand for."""
        values: npt.NDArray[np.float32] = self.codes.astype(np.float32) * self.scales[:, None]
        return values if self.factors is None else values / self.factors


def quantize_channels(
    values: npt.NDArray[np.float32], factors: npt.NDArray[np.float32] | None = None
) -> ChannelQuantized:
    """``values`` [outputs, inputs] to the nearest codes; the largest magnitude of a row is the code 64."""
    if factors is not None:
        values = values * factors
    largest = np.abs(values).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(LARGEST_CODE), 1).astype(np.float32)
    # A scale may have become zero, which stands for weights that are as good as zero.
    scales[scales == 0] = 1
    codes = np.clip(np.rint(values / scales[:, None]), -LARGEST_CODE, LARGEST_CODE)
    return ChannelQuantized(codes=codes.astype(np.int8), scales=scales, factors=factors)


def smoothing_factors(
    activations: npt.NDArray[np.float32], weights: Sequence[npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """What to divide columns of activations by, and multiply those of ``weights`` [outputs, inputs] by.

    ``activations`` [inputs] are the largest magnitudes. Both become equally wide: the rule of SmoothQuant
    with a strength of one half (Xiao et al. 2022, arXiv:2211.10438). Their geometric mean is 1.
    """
    widest = np.max([np.abs(values).max(axis=0) for values in weights], axis=0)
    sides = [np.maximum(side, _NARROWEST * side.max()) for side in (activations, widest)]
    if not all(np.all(side > 0) for side in sides):
        return np.ones(len(activations), np.float32)
    logarithms = np.log(sides[0].astype(np.float64)) - np.log(sides[1].astype(np.float64))
    factors: npt.NDArray[np.float32] = np.exp((logarithms - logarithms.mean()) / 2).astype(np.float32)
    return factors


class RowProducts:
    """Nodes for products of quantized activations with ``ChannelQuantized`` weights, in QDQ form.

    ``m`` is the largest magnitude of a row of x (at least 1e-30). The row is quantized to
    ``q = round(x * (127 / m))``, ties to even, and the product is ``(q @ W) * (m / 127)``. Each x is
    quantized once for all that multiply by it.
    """

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._rows: dict[str, tuple[str, str]] = {}
        self.tensors: dict[str, npt.NDArray[Any]] = {}
        self.rows: dict[str, list[onnx.NodeProto]] = {}  # by x: what quantizes it

    def product(
        self, x: str, weight: str, stored: ChannelQuantized, output: str, label: str
    ) -> list[onnx.NodeProto]:
        """``output = x @ W`` with the codes ``weight`` [inputs, outputs], whose scales are named after it."""
        import onnx

        q, factor = self._quantized(x, stored.factors)
        real, sums = f"{weight}/real/{output}", f"{output}/sums"
        make = onnx.helper.make_node
        return [
            make("DequantizeLinear", [weight, f"{weight}/scales"], [real], name=f"{label}/weight", axis=1),
            make("MatMul", [q, real], [sums], name=label),
            make("Mul", [sums, factor], [output], name=f"{label}/rescale"),
        ]

    def _quantized(self, x: str, factors: npt.NDArray[np.float32] | None) -> tuple[str, str]:
        """``x``, divided by ``factors``, as whole numbers in float32, and the scale of each row."""
        import onnx

        if x in self._rows:
            return self._rows[x]
        prefix = f"{x}/rows"
        constants: dict[str, Any] = {
            "one": np.array(1, np.float32),
            "zero": np.array(_ZERO_POINT, np.uint8),
            "tiny": np.array(_TINY, np.float32),
            "largest": np.array(_LARGEST_ACTIVATION, np.float32),
            "share": np.array(1 / np.float32(_LARGEST_ACTIVATION), np.float32),
        }
        if self._opset >= _AXES_INPUT_OPSET:
            constants["axis"] = np.array([-1], np.int64)
        names = {name: f"quantized_rows/{name}" for name in constants}
        self.tensors |= {names[name]: value for name, value in constants.items()}
        nodes = self.rows.setdefault(x, [])

        def add(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
            output = f"{prefix}/{suffix}"
            nodes.append(onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
            return output

        parameters = [names["one"], names["zero"]]
        source = x
        if factors is not None:
            self.tensors[f"{prefix}/smoothing"] = (1 / factors).astype(np.float32)
            source = add("Mul", [x, f"{prefix}/smoothing"], "smooth")
        size = add("Abs", [source], "size")
        axes: dict[str, Any] = {} if "axis" in names else {"axes": [-1]}
        operands = [size, names["axis"]] if "axis" in names else [size]
        found = add("ReduceMax", operands, "found", keepdims=1, **axes)
        most = add("Max", [found, names["tiny"]], "most")
        inverse = add("Div", [names["largest"], most], "inverse")
        scaled = add("Mul", [source, inverse], "scaled")
        codes = add("QuantizeLinear", [scaled, *parameters], "codes")
        whole = add("DequantizeLinear", [codes, *parameters], "whole")
        self._rows[x] = whole, add("Mul", [most, names["share"]], "factor")
        return self._rows[x]
