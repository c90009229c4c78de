"""An ONNX graph under construction: nodes, constants, and products with weights in any stored form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from assay.models.decoders.initializers import InitializerWriter
from assay.models.decoders.weights import BlockQuantized, Tensor

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = ["MICROSOFT", "Graph"]

MICROSOFT = "com.microsoft"
# accuracy_level of MatMulNBits: activations may be quantized to 8 bits a block.
_INT8_ACTIVATIONS = 4


class Graph:
    """Nodes and initializers. A node has the name of its first output."""

    def __init__(self, initializers: InitializerWriter) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._initializers = initializers

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node; its first output."""
        import onnx

        names = [outputs] if isinstance(outputs, str) else list(outputs)
        self.nodes.append(
            onnx.helper.make_node(operator, inputs, names, name=names[0], domain=domain, **attributes)
        )
        return names[0]

    def constant(self, name: str, values: npt.NDArray[Any]) -> str:
        """The initializer ``name`` with ``values`` as they are; its name."""
        return self._initializers.add(name, values)

    def scalar(self, name: str, value: float) -> str:
        """A float32 initializer without dimensions."""
        import numpy as np

        return self.constant(name, np.array(value, np.float32))

    def vector(self, name: str, values: npt.NDArray[Any]) -> str:
        """A norm's weight or a bias, whatever its stored dtype, as a float32 initializer."""
        import numpy as np

        return self.constant(name, values.astype(np.float32))

    def linear(self, x: str, weight: Tensor, name: str, output: str) -> str:
        """``x`` times the transpose of ``weight`` [out, in], which is stored under ``name``.

        MatMulNBits for a block-quantized weight; otherwise MatMul with an initializer [in, out], behind a
        Cast to float32 where it has 16 bits.
        """
        if isinstance(weight, BlockQuantized):
            return self.quantized_linear(x, weight, self.quantized(name, weight), output)
        import numpy as np

        stored = self.constant(name, np.ascontiguousarray(weight.T))
        return self.node("MatMul", [x, self.widened(stored, weight)], output)

    def widened(self, value: str, array: npt.NDArray[Any]) -> str:
        """``value`` as float32, where ``array`` has its dtype."""
        import onnx

        if array.dtype == "float32":
            return value
        return self.node("Cast", [value], f"{value}.float32", to=onnx.TensorProto.FLOAT)

    def quantized(self, name: str, weight: BlockQuantized) -> list[str]:
        """Initializers as MatMulNBits has them: codes uint8 [out, blocks, bytes], scales, zero points."""
        import numpy as np

        rows, columns = weight.shape
        codes = weight.codes
        if weight.bits == 4:
            codes = np.bitwise_or(codes[:, 0::2], np.left_shift(codes[:, 1::2], 4), dtype=np.uint8)
        blob = weight.block_size * weight.bits // 8
        names = [
            self.constant(name, codes.reshape(rows, columns // weight.block_size, blob)),
            self.constant(f"{name}.scales", weight.scales),
        ]
        if weight.zero_points is not None:
            names.append(self.constant(f"{name}.zero_points", weight.zero_points))
        return names

    def quantized_linear(self, x: str, weight: BlockQuantized, stored: Sequence[str], output: str) -> str:
        """``x`` times the transpose of a weight that ``quantized`` has stored."""
        rows, columns = weight.shape
        return self.node(
            "MatMulNBits",
            [x, *stored],
            output,
            domain=MICROSOFT,
            N=rows,
            K=columns,
            bits=weight.bits,
            block_size=weight.block_size,
            accuracy_level=_INT8_ACTIVATIONS,
        )

    def add(self, x: str, y: str, output: str) -> str:
        """The sum of two values."""
        return self.node("Add", [x, y], output)
