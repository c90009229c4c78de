"""Write a stored weight into the graph: initializers in their new form, and nodes that read it so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from assay.compile.quantize.channels import ChannelQuantized, RowProducts
from assay.compile.quantize.sites import Kind, Reader, Weight
from assay.models.decoders.weights import BlockQuantized

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

    Stored: TypeAlias = npt.NDArray[Any] | BlockQuantized | ChannelQuantized

__all__ = ["Rewriter", "pack_codes"]

_MICROSOFT = "com.microsoft"
# Activations quantized to int8, one scale for each group.
_INT8_ACTIVATIONS = 4
_FLOAT = 1  # onnx.TensorProto.FLOAT


def pack_codes(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Codes along the last axis as bytes: at 4 bits two a byte, the first in the low half."""
    if bits == 8:
        return codes
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    packed: npt.NDArray[np.uint8] = padded[..., 0::2] | (padded[..., 1::2] << np.uint8(4))
    return packed


class Rewriter:
    """Changes a model in place, weight after weight; ``finish`` puts the graph together again.

    Positions of nodes stay those of the graph as it was until then.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._before: dict[int, list[onnx.NodeProto]] = {}
        self._replaced: dict[int, list[onnx.NodeProto]] = {}
        self._removed: set[str] = set()
        self._added: list[onnx.TensorProto] = []
        self._microsoft = False
        versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
        self._row_products = RowProducts(versions[0])
        self._quantized_at: dict[str, int] = {}  # by a left operand: the first node that multiplies by it

    def store(self, weight: Weight, stored: Stored) -> None:
        """Replace a weight by its stored form."""
        self._removed |= {weight.name, *weight.copies}
        if isinstance(stored, BlockQuantized):
            self._store_groups(weight, stored)
        elif isinstance(stored, ChannelQuantized):
            self._store_channels(weight, stored)
        else:
            self._store_floats(weight, stored)

    def _store_floats(self, weight: Weight, stored: npt.NDArray[Any]) -> None:
        """One initializer of the type; a table's rows are widened once read, other weights as a whole."""
        tensor = np.ascontiguousarray(stored.T) if weight.transposed else stored
        self._add(weight.name, tensor)
        narrow = tensor.dtype != np.float32
        readers = sorted(weight.readers, key=self._place)
        if narrow:
            for reader in readers:
                if reader.kind is Kind.TABLE:
                    self._widen_rows(reader)
            readers = [reader for reader in readers if reader.kind is not Kind.TABLE]
        if not readers:
            return
        source = self._widened(weight.name, self._place(readers[0])) if narrow else weight.name
        for reader in readers:
            node = self._node(self._place(reader))
            position = reader.position if reader.through is None else 0
            read = node.input[position]
            node.input[position] = source if read == weight.name else self._turned(source, read, reader)

    def _place(self, reader: Reader) -> int:
        """The node that reads the initializer itself."""
        return reader.node if reader.through is None else reader.through

    def _widened(self, name: str, place: int) -> str:
        """A weight as float32, from the node at ``place`` on."""
        import onnx

        output = f"{name}/float32"
        cast = onnx.helper.make_node("Cast", [name], [output], name=output, to=_FLOAT)
        self._before.setdefault(place, []).append(cast)
        return output

    def _widen_rows(self, reader: Reader) -> None:
        """The rows that a Gather reads, cast to float32 behind it."""
        import onnx

        node = onnx.NodeProto()
        node.CopyFrom(self._node(reader.node))
        output, node.output[0] = node.output[0], f"{node.output[0]}/stored"
        cast = onnx.helper.make_node("Cast", [node.output[0]], [output], name=f"{output}/float32", to=_FLOAT)
        self._replaced[reader.node] = [node, cast]

    def _turned(self, source: str, copy: str, reader: Reader) -> str:
        """What stands for ``copy``, a second initializer that is the transpose of ``source``."""
        import onnx

        output = f"{copy}/turned"
        place = self._place(reader)
        known = (node for nodes in self._before.values() for node in nodes)
        if all(node.name != output for node in known):
            turn = onnx.helper.make_node("Transpose", [source], [output], name=output, perm=[1, 0])
            self._before.setdefault(place, []).append(turn)
        return output

    def _store_groups(self, weight: Weight, stored: BlockQuantized) -> None:
        rows, columns = weight.shape
        bits, group = stored.bits, stored.block_size
        name, scales = weight.name, f"{weight.name}/scales"
        whole = columns % group == 0
        if weight.kinds != {Kind.TABLE}:
            self._add(name, pack_codes(stored.codes.reshape(rows, -1, group), bits))
        if weight.kinds == {Kind.TABLE} or (Kind.TABLE in weight.kinds and not whole):
            table = name if weight.kinds == {Kind.TABLE} else f"{name}/rows"
            self._add(table, pack_codes(stored.codes[:, :columns], bits))
        elif Kind.TABLE in weight.kinds:
            table = self._flat(name, columns * bits // 8, min(map(self._place, weight.readers)))
        self._add(scales, stored.scales)
        zeros = []
        if stored.zero_points is not None:
            zeros = [f"{name}/zero_points"]
            self._add(zeros[0], pack_codes(stored.zero_points.astype(np.uint8), bits))
        for reader in weight.readers:
            codes = table if reader.kind is Kind.TABLE else name
            self._replace(reader, weight, [codes, scales, *zeros], bits, group)

    def _flat(self, name: str, width: int, place: int) -> str:
        """Codes of a product as those of a table: the same bytes in the same order, ``width`` a row."""
        import onnx

        shape, output = f"{name}/flat_shape", f"{name}/flat"
        self._add(shape, np.array([-1, width], np.int64))
        node = onnx.helper.make_node("Reshape", [name, shape], [output], name=output)
        self._before.setdefault(place, []).append(node)
        return output

    def _replace(self, reader: Reader, weight: Weight, operands: list[str], bits: int, group: int) -> None:
        """Put an operator on groups in the place of the node."""
        import onnx

        self._microsoft = True
        node = self._node(reader.node)
        label = node.name or node.output[0]
        if reader.kind is Kind.TABLE:
            operator, inputs = "GatherBlockQuantized", [operands[0], node.input[1], *operands[1:]]
            options = {"gather_axis": 0, "quantize_axis": 1}
        else:
            rows, columns = weight.shape
            operator, inputs = "MatMulNBits", [node.input[0], *operands]
            options = {"K": columns, "N": rows, "accuracy_level": _INT8_ACTIVATIONS}
        output, bias = self._before_bias(node, label)
        made = [
            onnx.helper.make_node(
                operator,
                inputs,
                [output],
                name=label,
                domain=_MICROSOFT,
                bits=bits,
                block_size=group,
                **options,
            )
        ]
        self._put(reader, [*made, *bias])

    def _store_channels(self, weight: Weight, stored: ChannelQuantized) -> None:
        self._add(weight.name, stored.codes.T)
        self._add(f"{weight.name}/scales", stored.scales)
        for reader in weight.readers:
            node = self._node(reader.node)
            label, x = node.name or node.output[0], node.input[0]
            output, bias = self._before_bias(node, label)
            made = self._row_products.product(x, weight.name, stored, output, label)
            self._put(reader, [*made, *bias])
            self._quantized_at[x] = min(reader.node, self._quantized_at.get(x, reader.node))

    @staticmethod
    def _before_bias(node: onnx.NodeProto, label: str) -> tuple[str, list[onnx.NodeProto]]:
        """What the product of a node is called, and the node that adds its third operand, if it has one."""
        import onnx

        output = str(node.output[0])
        addend = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        if not addend:
            return output, []
        product = f"{output}/product"
        return product, [onnx.helper.make_node("Add", [product, addend], [output], name=f"{label}/bias")]

    def _put(self, reader: Reader, made: list[onnx.NodeProto]) -> None:
        """Put ``made`` in the place of a node, and of the transpose before it."""
        self._replaced[reader.node] = made
        if reader.through is not None:
            self._replaced.setdefault(reader.through, [])

    def _node(self, index: int) -> onnx.NodeProto:
        return self._model.graph.node[index]

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        import onnx

        self._added.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))

    def finish(self) -> None:
        """Put nodes and initializers together; the latter in the order of their names."""
        import onnx

        graph = self._model.graph
        for x, place in self._quantized_at.items():
            self._before.setdefault(place, [])[:0] = self._row_products.rows[x]
        for name, values in self._row_products.tensors.items():
            self._add(name, values)
        nodes: list[onnx.NodeProto] = []
        for index, node in enumerate(graph.node):
            nodes += self._before.get(index, [])
            nodes += self._replaced.get(index, [node])
        tensors = [tensor for tensor in graph.initializer if tensor.name not in self._removed]
        tensors = sorted([*tensors, *self._added], key=lambda tensor: str(tensor.name))
        made = onnx.GraphProto()
        made.node.extend(nodes)
        made.initializer.extend(tensors)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(made.node)
        graph.initializer.extend(made.initializer)
        if self._microsoft and all(entry.domain != _MICROSOFT for entry in self._model.opset_import):
            self._model.opset_import.append(onnx.helper.make_opsetid(_MICROSOFT, 1))
