"""The table of embeddings, and the head that may share its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.models.decoders.graph import MICROSOFT, Graph
from assay.models.decoders.weights import BlockQuantized, Tensor, dequantize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Embedding"]


class Embedding:
    """A table [rows, columns] that is stored once, read by rows and, where it is tied, multiplied by."""

    def __init__(self, graph: Graph, name: str, table: Tensor) -> None:
        self._graph = graph
        self._name = name
        self._table = table
        self._stored = (
            graph.quantized(name, table)
            if isinstance(table, BlockQuantized)
            else [graph.constant(name, table)]
        )

    def rows(self, ids: str, output: str) -> str:
        """Rows ``ids`` as float32 [..., columns].

        Of a block-quantized table GatherBlockQuantized; that operator has integer zero points only, so that a
        table with float32 ones is stored again, dequantized, for a plain Gather.
        """
        table, graph = self._table, self._graph
        if not isinstance(table, BlockQuantized):
            if table.dtype == "float32":
                return graph.node("Gather", [self._stored[0], ids], output)
            narrow = graph.node("Gather", [self._stored[0], ids], f"{output}.stored")
            return graph.widened(narrow, table)
        if table.zero_points is not None:
            plain = graph.constant(f"{self._name}.dequantized", dequantize(table))
            return graph.node("Gather", [plain, ids], output)
        return graph.node(
            "GatherBlockQuantized",
            [self._flat(table), ids, self._stored[1]],
            output,
            domain=MICROSOFT,
            bits=table.bits,
            block_size=table.block_size,
            gather_axis=0,
            quantize_axis=1,
        )

    def _flat(self, table: BlockQuantized) -> str:
        """The codes as GatherBlockQuantized has them, [rows, bytes]: the same bytes in the same order."""
        import numpy as np

        rows, columns = table.shape
        shape: npt.NDArray[np.int64] = np.array([rows, columns * table.bits // 8], np.int64)
        flat = self._graph.constant(f"{self._name}.flat_shape", shape)
        return self._graph.node("Reshape", [self._stored[0], flat], f"{self._name}.flat")

    def head(self, x: str, output: str) -> str:
        """``x`` times the transpose of the table."""
        table, graph = self._table, self._graph
        if isinstance(table, BlockQuantized):
            return graph.quantized_linear(x, table, self._stored, output)
        widened = graph.widened(self._stored[0], table)
        turned = graph.node("Transpose", [widened], f"{self._name}.transposed", perm=[1, 0])
        return graph.node("MatMul", [x, turned], output)
