"""The weights of a graph that schemes can store in fewer bits, and the nodes that read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = ["Kind", "Reader", "Weight", "find_weights"]

# Smaller tensors are not worth a scale.
_SMALLEST_ELEMENTS = 256


class Kind(StrEnum):
    """What reads a weight."""

    PRODUCT = "product"  # MatMul, Gemm
    TABLE = "table"  # Gather: an embedding
    CONVOLUTION = "convolution"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A node that reads a weight as its input ``position``.

    ``transposed``: what it reads is the transpose of the weight's matrix [outputs, inputs]; ``through`` is
    the index of the Transpose node between, if one is there.
    """

    node: int
    kind: Kind
    position: int
    transposed: bool
    through: int | None = None


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One weight: its initializer, or several with the same numbers, and who reads it.

    As a matrix it is [outputs, inputs] of a product, [rows, columns] of a table.
    """

    name: str
    shape: tuple[int, ...]  # of the matrix, or of the tensor where it is none
    readers: tuple[Reader, ...]
    copies: tuple[str, ...] = ()
    tensor: onnx.TensorProto = field(repr=False, compare=False)
    transposed: bool = False  # the tensor is the transpose of the matrix

    @property
    def kinds(self) -> frozenset[Kind]:
        """What reads it."""
        return frozenset(reader.kind for reader in self.readers)

    @property
    def is_matrix(self) -> bool:
        """Whether every reader reads it as one matrix of products or rows."""
        return len(self.shape) == 2 and Kind.CONVOLUTION not in self.kinds

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape))

    def values(self) -> npt.NDArray[np.float32]:
        """The numbers, as the matrix where it is one. Raises ModelError where some are not finite."""
        import onnx

        array: npt.NDArray[np.float32] = onnx.numpy_helper.to_array(self.tensor)
        if not np.all(np.isfinite(array)):
            raise ModelError(
                f"The weight {self.name!r} has numbers that are not finite, which no scheme can store.",
                hint="Look at how the model was trained or exported; --scheme source builds it as it is.",
            )
        return np.ascontiguousarray(array.T) if self.transposed else array


def find_weights(model: onnx.ModelProto) -> list[Weight]:
    """The float32 weights of products, tables and convolutions, in the order in which they are read.

    A weight is left out where a graph output, a subgraph or another operator reads it too. A table whose
    transpose is a second initializer (a tied head) is one weight.
    """
    graph = model.graph
    found: dict[str, list[Reader]] = {}
    tensors = {tensor.name: tensor for tensor in _floats(graph)}
    refused = {value.name for value in graph.output} | set(_names_in_subgraphs(graph))
    transposes: dict[str, tuple[int, str]] = {}
    for index, node in enumerate(graph.node):
        if _turns(node) and node.input[0] in tensors:
            transposes[node.output[0]] = (index, node.input[0])
    for index, node in enumerate(graph.node):
        if index in {place for place, _ in transposes.values()}:
            continue
        for position, name in enumerate(node.input):
            through, source = transposes.get(name, (None, name))
            if source not in tensors:
                continue
            reader = _reader(node, index, position, tensors[source], through)
            if reader is None:
                refused.add(source)
            else:
                found.setdefault(source, []).append(reader)
    weights = []
    for name, readers in found.items():
        weight = None if name in refused else _weight(tensors[name], readers)
        if weight is not None and weight.elements >= _SMALLEST_ELEMENTS:
            weights.append(weight)
    return _tied(weights)


def _floats(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    import onnx

    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2:
            yield tensor


def _names_in_subgraphs(graph: onnx.GraphProto) -> Iterator[str]:
    from assay.models.export.strip import names_in_subgraphs

    for node in graph.node:
        yield from names_in_subgraphs(node)


def _turns(node: onnx.NodeProto) -> bool:
    if node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
        return False
    permutation = next((list(item.ints) for item in node.attribute if item.name == "perm"), [1, 0])
    return permutation == [1, 0]


def _reader(
    node: onnx.NodeProto, index: int, position: int, tensor: onnx.TensorProto, through: int | None
) -> Reader | None:
    """How ``node`` reads a weight; None where no scheme knows the operator."""
    if node.domain not in ("", "ai.onnx"):
        return None
    attributes = {item.name: item for item in node.attribute}
    turned = through is not None
    if node.op_type == "MatMul" and position == 1 and len(tensor.dims) == 2:
        kind, transposed = Kind.PRODUCT, not turned
    elif node.op_type == "Gemm" and position == 1 and not _integer(attributes, "transA"):
        kind, transposed = Kind.PRODUCT, not (bool(_integer(attributes, "transB")) ^ turned)
    elif node.op_type == "Gather" and position == 0 and not _integer(attributes, "axis") and not turned:
        kind, transposed = Kind.TABLE, False
    elif node.op_type == "Conv" and position == 1 and not turned:
        kind, transposed = Kind.CONVOLUTION, False
    else:
        return None
    return Reader(node=index, kind=kind, position=position, transposed=transposed, through=through)


def _integer(attributes: dict[str, onnx.AttributeProto], name: str) -> int:
    return int(attributes[name].i) if name in attributes else 0


def _weight(tensor: onnx.TensorProto, readers: list[Reader]) -> Weight | None:
    """One weight, where all readers agree on what its rows are."""
    transposed = {reader.transposed for reader in readers}
    if len(transposed) > 1:
        return None
    shape = tuple(int(size) for size in tensor.dims)
    turned = transposed.pop()
    return Weight(
        name=tensor.name,
        shape=shape[::-1] if turned else shape,
        readers=tuple(readers),
        tensor=tensor,
        transposed=turned,
    )


def _tied(weights: list[Weight]) -> list[Weight]:
    """``weights``, where a product whose matrix is a table's too is one with it."""
    import dataclasses

    result = list(weights)
    tables = [weight for weight in weights if weight.kinds == {Kind.TABLE} and weight.is_matrix]
    for table in tables:
        for head in weights:
            if head.kinds != {Kind.PRODUCT} or head.shape != table.shape:
                continue
            if np.array_equal(head.values(), table.values()):
                one = dataclasses.replace(
                    table,
                    readers=(*table.readers, *head.readers),
                    copies=(*table.copies, head.name),
                )
                result[result.index(table)] = one
                result.remove(head)
                table = one
    return result
