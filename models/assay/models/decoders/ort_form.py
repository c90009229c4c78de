"""The form of a canonical decoder that ONNX Runtime runs fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.export.weights import save

if TYPE_CHECKING:
    import onnx

__all__ = ["split_zero_points", "write_ort_form"]

_ZERO = {4: 8, 8: 128}


def write_ort_form(source: Path, target: Path) -> bool:
    """Write the decoder at ``source`` to ``target`` with its zero points split; whether it had any to split.

    Nothing is written for a decoder without: ONNX Runtime runs ``source`` itself as fast as it can. Weights
    over 64 MiB lie beside ``target`` as ``.bin``.
    """
    import onnx

    model = onnx.load_model(source)
    if not split_zero_points(model):
        return False
    save(model, target, target.with_suffix(".bin").name)
    return True


def split_zero_points(model: onnx.ModelProto) -> int:
    """Give every MatMulNBits with float zero points the integer ones instead, in place; how many there were.

    ONNX Runtime dequantizes a weight with float zero points at every call. The product of a block is
    ``scale * sum((code - zero) * x)``, which is ``scale * sum((code - integer) * x)`` and
    ``scale * (integer - zero) * sum(x)``: a MatMul of the sums of the blocks of x makes up for it.
    The value is the same up to rounding, and up to what ``accuracy_level`` allows the fast kernels. Weights
    must be in memory, not in external data.
    """
    import onnx

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    sums: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in graph.node:
        zero = tensors.get(node.input[3]) if node.op_type == "MatMulNBits" and len(node.input) > 3 else None
        if zero is None or zero.data_type != onnx.TensorProto.FLOAT:
            nodes.append(node)
            continue
        attributes = {item.name: item.i for item in node.attribute}
        key = (node.input[0], attributes["block_size"])
        if key not in sums:
            sums[key] = _block_sums(graph, nodes, *key)
        correction = _correction(graph, tensors[node.input[2]], zero, _ZERO[attributes.get("bits", 4)])
        output = node.output[0]
        del node.input[3:]
        node.output[0] = f"{output}.integer"
        shift = onnx.helper.make_node("MatMul", [sums[key], correction], [f"{output}.shift"])
        total = onnx.helper.make_node("Add", [node.output[0], shift.output[0]], [output])
        nodes += [node, shift, total]
        changed += 1
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for index in reversed([i for i, tensor in enumerate(graph.initializer) if tensor.name not in used]):
        del graph.initializer[index]
    return changed


def _block_sums(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], x: str, block_size: int) -> str:
    """Add the sums of the blocks of ``x`` [batch, tokens, columns]; their name."""
    import numpy as np
    import onnx

    shape, axis = f"{x}.blocks_shape.{block_size}", f"{x}.blocks_axis.{block_size}"
    blocks, output = f"{x}.blocks.{block_size}", f"{x}.sums.{block_size}"
    for name, values in ((shape, [0, 0, -1, block_size]), (axis, [-1])):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    nodes.append(onnx.helper.make_node("Reshape", [x, shape], [blocks]))
    nodes.append(onnx.helper.make_node("ReduceSum", [blocks, axis], [output], keepdims=0))
    return output


def _correction(
    graph: onnx.GraphProto, scales: onnx.TensorProto, zero: onnx.TensorProto, integer: int
) -> str:
    """Store ``scale * (integer - zero)`` as [blocks, out]; its name."""
    import numpy as np
    import onnx

    values = onnx.numpy_helper.to_array(scales) * (np.float32(integer) - onnx.numpy_helper.to_array(zero))
    name = f"{zero.name}.correction"
    graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values.T), name))
    return name
