"""Write a stored weight into the graph: initializers in their new form, and nodes that read it so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from assay.compile.quantize.sites import Kind, Reader, Weight
from assay.models.decoders.weights import BlockQuantized

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

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

    def store(self, weight: Weight, stored: npt.NDArray[Any] | BlockQuantized) -> None:
        """Replace a weight by its stored form."""
        self._removed |= {weight.name, *weight.copies}
        if isinstance(stored, BlockQuantized):
            self._store_groups(weight, stored)
        else:
            self._store_floats(weight, stored)

    def _store_floats(self, weight: Weight, stored: npt.NDArray[Any]) -> None:
        """One initializer of the type, behind a Cast to float32 for each reader."""
        import onnx

        tensor = np.ascontiguousarray(stored.T) if weight.transposed else stored
        self._add(weight.name, tensor)
        if tensor.dtype == np.float32:
            source = weight.name
        else:
            source = f"{weight.name}/float32"
            first = min(reader.through or reader.node for reader in weight.readers)
            cast = onnx.helper.make_node("Cast", [weight.name], [source], name=source, to=_FLOAT)
            self._before.setdefault(first, []).append(cast)
        for reader in weight.readers:
            place = reader.node if reader.through is None else reader.through
            position = reader.position if reader.through is None else 0
            node = self._node(place)
            read = node.input[position]
            if read == weight.name:
                node.input[position] = source
            else:
                # A copy of the matrix, the other way around.
                turned = f"{read}/turned"
                if place not in self._before or all(n.name != turned for n in self._before[place]):
                    turn = onnx.helper.make_node("Transpose", [source], [turned], name=turned, perm=[1, 0])
                    self._before.setdefault(place, []).append(turn)
                node.input[position] = turned

    def _store_groups(self, weight: Weight, stored: BlockQuantized) -> None:
        rows, columns = weight.shape
        bits, group = stored.bits, stored.block_size
        zeros = None if stored.zero_points is None else pack_codes(stored.zero_points.astype(np.uint8), bits)
        for reader in weight.readers:
            name = weight.name
            if reader.kind is Kind.TABLE:
                if not self._has(name):
                    self._add(name, pack_codes(stored.codes[:, :columns], bits))
            else:
                name = f"{name}/blocks" if Kind.TABLE in weight.kinds else name
                if not self._has(name):
                    self._add(name, pack_codes(stored.codes.reshape(rows, -1, group), bits))
            self._add_once(f"{weight.name}/scales", stored.scales)
            operands = [name, f"{weight.name}/scales"]
            if zeros is not None:
                self._add_once(f"{weight.name}/zero_points", zeros)
                operands.append(f"{weight.name}/zero_points")
            self._replace(reader, weight, operands, bits, group)

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
        addend = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        output = f"{node.output[0]}/product" if addend else node.output[0]
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
        if addend:
            made.append(
                onnx.helper.make_node("Add", [output, addend], [node.output[0]], name=f"{label}/bias")
            )
        self._replaced[reader.node] = made
        if reader.through is not None:
            self._replaced.setdefault(reader.through, [])

    def _node(self, index: int) -> onnx.NodeProto:
        return self._model.graph.node[index]

    def _has(self, name: str) -> bool:
        return any(tensor.name == name for tensor in self._added)

    def _add_once(self, name: str, values: npt.NDArray[Any]) -> None:
        if not self._has(name):
            self._add(name, values)

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        import onnx

        self._added.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))

    def finish(self) -> None:
        """Put nodes and initializers together; the latter in the order of their names."""
        import onnx

        graph = self._model.graph
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
