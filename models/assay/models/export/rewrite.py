"""Rewrites of operators into forms that compile well, each with the same result up to rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["may_rewrite", "rewrite"]

_REWRITTEN = frozenset({"BatchNormalization", "Neg", "Pow", "Sum"})


def may_rewrite(model: onnx.ModelProto) -> bool:
    """Whether the model has an operator that ``rewrite`` looks at."""
    return any(node.op_type in _REWRITTEN for node in model.graph.node)


def rewrite(model: onnx.ModelProto, ranks: Mapping[str, int]) -> bool:
    """Apply every rewrite to ``model``, in place, and return whether any applied.

    ``ranks`` has the number of dimensions of values, as far as they are known.

    - ``Sum`` becomes a chain of ``Add``, because the importer would stack the inputs and reduce them.
    - A ``BatchNormalization`` that could not be folded into a convolution becomes a ``Mul`` and an ``Add``,
      which take in a constant ``Mul`` and ``Add`` after it (older networks scale in a separate layer).
    - A square, ``Pow`` with the constant 2, becomes ``Mul``.
    - ``Neg`` of a convolution's output goes into its weights.
    """
    editor = _Editor(model.graph)
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx"):
            if node.op_type == "Sum":
                _chain_of_adds(node, editor)
            elif node.op_type == "BatchNormalization":
                _scale_and_shift(node, editor, ranks)
            elif node.op_type == "Pow":
                _square(node, editor)
            elif node.op_type == "Conv":
                _negate_kernel(node, editor)
    return editor.apply()


class _Editor:
    """A graph under change: replacements are collected, then the node list is written once, in its order."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        # By the node's first output, which no two nodes share.
        self._replacements: dict[str, list[onnx.NodeProto]] = {}

    def replace(self, node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> None:
        """Put ``nodes`` where ``node`` was."""
        self._replacements[node.output[0]] = list(nodes)

    def constant(self, name: str) -> npt.NDArray[np.float32] | None:
        """The value of a float32 initializer, None for anything else."""
        import onnx

        tensor = self._initializers.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        values: npt.NDArray[np.float32] = onnx.numpy_helper.to_array(tensor)
        return values

    def add_constant(self, name: str, values: npt.NDArray[np.float32]) -> str:
        """The initializer ``name``, which is added unless it is there; its name."""
        import onnx

        if name not in self._initializers:
            tensor = onnx.numpy_helper.from_array(values, name)
            self._graph.initializer.append(tensor)
            self._initializers[name] = tensor
        return name

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads ``name``, when it is not also an output of the graph."""
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def apply(self) -> bool:
        """Write the nodes back with all replacements made; whether there were any."""
        import onnx

        if not self._replacements:
            return False
        result = onnx.GraphProto()
        for node in self._graph.node:
            result.node.extend(self._replacements.get(next(iter(node.output), ""), [node]))
        del self._graph.node[:]
        self._graph.node.extend(result.node)
        return True


def _chain_of_adds(node: onnx.NodeProto, editor: _Editor) -> None:
    import onnx

    result, name = node.output[0], node.name or node.output[0]
    total, *others = node.input
    if not others:
        editor.replace(node, [onnx.helper.make_node("Identity", [total], [result], name=name)])
        return
    adds = []
    for index, other in enumerate(others):
        target = result if index == len(others) - 1 else f"{result}/partial{index}"
        label = name if index == len(others) - 1 else f"{name}/partial{index}"
        adds.append(onnx.helper.make_node("Add", [total, other], [target], name=label))
        total = target
    editor.replace(node, adds)


def _square(node: onnx.NodeProto, editor: _Editor) -> None:
    import onnx

    exponent = editor.constant(node.input[1])
    if exponent is not None and exponent.shape in ((), (1,)) and exponent.item() == 2:
        value = node.input[0]
        editor.replace(
            node, [onnx.helper.make_node("Mul", [value, value], list(node.output), name=node.name)]
        )


def _negate_kernel(node: onnx.NodeProto, editor: _Editor) -> None:
    import onnx

    reader = editor.only_reader(node.output[0])
    constants = [editor.constant(name) for name in node.input[1:]]
    if reader is None or reader.op_type != "Neg" or any(item is None for item in constants):
        return
    result = reader.output[0]
    negated = onnx.NodeProto()
    negated.CopyFrom(node)
    negated.output[0] = result
    for index, values in enumerate(constants, start=1):
        if values is not None:
            # Named after the source: kernels that several convolutions share stay shared.
            negated.input[index] = editor.add_constant(f"{node.input[index]}/negated", -values)
    editor.replace(node, [negated])
    editor.replace(reader, [])


def _scale_and_shift(node: onnx.NodeProto, editor: _Editor, ranks: Mapping[str, int]) -> None:
    import numpy as np
    import onnx

    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    parameters = [editor.constant(name) for name in node.input[1:5]]
    rank = ranks.get(node.input[0], 0)
    known = [item.astype(np.float64) for item in parameters if item is not None]
    # With training mode or further outputs it computes the statistics itself.
    if rank < 2 or len(known) < 4 or len(node.output) > 1 or attributes.get("training_mode", 0):
        return
    gamma, beta, mean, variance = known
    scale = gamma / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    shift = beta - mean * scale
    result = node.output[0]
    swallowed = []
    while (reader := editor.only_reader(result)) is not None and reader.op_type in ("Mul", "Add"):
        other = reader.input[1] if reader.input[0] == result else reader.input[0]
        factor = _per_channel(editor.constant(other), rank, len(scale))
        if factor is None:
            break
        scale, shift = (
            (scale * factor, shift * factor) if reader.op_type == "Mul" else (scale, shift + factor)
        )
        swallowed.append(reader)
        result = reader.output[0]
    name, first = node.name or node.output[0], node.output[0]
    shape = (len(scale), *(1,) * (rank - 2))
    scale_name = editor.add_constant(f"{first}/scale", scale.reshape(shape).astype(np.float32))
    shift_name = editor.add_constant(f"{first}/shift", shift.reshape(shape).astype(np.float32))
    for reader in swallowed:
        editor.replace(reader, [])
    scaled = f"{first}/scaled"
    editor.replace(
        node,
        [
            onnx.helper.make_node("Mul", [node.input[0], scale_name], [scaled], name=f"{name}/scale"),
            onnx.helper.make_node("Add", [scaled, shift_name], [result], name=name),
        ],
    )


def _per_channel(
    values: npt.NDArray[np.float32] | None, rank: int, channels: int
) -> npt.NDArray[np.float64] | None:
    """``values`` as float64 [channels] if it broadcasts along the channels (axis 1) alone, else None."""
    import numpy as np

    if values is None or values.ndim > rank:
        return None
    shape = (1,) * (rank - values.ndim) + values.shape
    if shape not in ((1, channels, *(1,) * (rank - 2)), (1,) * rank):
        return None
    return np.broadcast_to(values.astype(np.float64).reshape(-1), (channels,))
