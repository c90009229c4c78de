"""A model whose weights are stored in fewer bits, in float32 again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = ["dequantize_model", "drop_round_trips", "stored_in_fewer_bits"]

_MICROSOFT = "com.microsoft"
_FLOAT = 1  # onnx.TensorProto.FLOAT
_HALVES = (10, 16)  # FLOAT16, BFLOAT16


def stored_in_fewer_bits(model: onnx.ModelProto) -> bool:
    """Whether some weight of the model is stored in fewer bits than float32."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    return any(_rule(node, tensors) is not None for node in model.graph.node)


def drop_round_trips(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no activation is quantized to be dequantized at once; weights stay as they are."""
    return _rewritten(model, frozenset({"round trip"}))


def dequantize_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every weight is float32, and activations are not quantized.

    MatMulNBits becomes MatMul, GatherBlockQuantized Gather, a Cast or DequantizeLinear of an initializer the
    initializer; a QuantizeLinear whose result is only dequantized goes, with its DequantizeLinear.
    Raises ModelError for a form of these operators that is not known.
    """
    return _rewritten(model, frozenset({"constant", "product", "round trip", "table"}))


def _rewritten(model: onnx.ModelProto, wanted: frozenset[str]) -> onnx.ModelProto:
    """A copy of ``model`` to which the rules of ``wanted`` were applied."""
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found = (_rule(node, tensors) for node in graph.node)
    rules = [rule if rule in wanted else None for rule in found]
    if not any(rules):
        return result
    made: list[onnx.NodeProto] = []
    added: dict[str, onnx.TensorProto] = {}
    renamed: dict[str, str] = {}
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    for node, rule in zip(graph.node, rules, strict=True):
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        if rule == "round trip" and node.input[0] in quantized:
            source = quantized[node.input[0]]
            renamed[node.output[0]] = renamed.get(source, source)
        elif rule == "constant":
            value = _constant(node, tensors)
            added[node.output[0]] = onnx.numpy_helper.from_array(value, node.output[0])
        elif rule == "product":
            made += _product(node, tensors, added)
        elif rule == "table":
            made.append(_table(node, tensors, added))
        else:
            made.append(node)
    for value in graph.output:
        if value.name in renamed:
            made.append(onnx.helper.make_node("Identity", [renamed[value.name]], [value.name]))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(added.values())
    _drop_unused(result)
    return result


def _rule(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> str | None:
    """What is done with a node; None for nothing."""
    if node.domain == _MICROSOFT and node.op_type == "MatMulNBits":
        return "product"
    if node.domain == _MICROSOFT and node.op_type == "GatherBlockQuantized":
        return "table"
    if node.op_type == "DequantizeLinear":
        return "constant" if node.input[0] in tensors else "round trip"
    if node.op_type == "Cast" and node.input[0] in tensors and _target(node) == _FLOAT:
        return "constant" if tensors[node.input[0]].data_type in _HALVES else None
    return None


def _target(node: onnx.NodeProto) -> int:
    return int(next((item.i for item in node.attribute if item.name == "to"), 0))


def _constant(node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]) -> npt.NDArray[np.float32]:
    """The value of a Cast or DequantizeLinear of an initializer."""
    array = _array(node, tensors, 0)
    assert array is not None
    if node.op_type == "Cast":
        return array.astype(np.float32)
    scale, zero = _array(node, tensors, 1), _array(node, tensors, 2)
    if scale is None:
        raise ModelError(f"The scale of the node {node.name or node.output[0]!r} is not a constant.")
    attributes = {item.name: item.i for item in node.attribute}
    if attributes.get("block_size"):
        axis = attributes.get("axis", 1)
        size = attributes["block_size"]
        scale, zero = (_stretched(each, axis, size, array.shape) for each in (scale, zero))
        assert scale is not None
    elif scale.ndim == 1 and scale.size > 1:
        shape = [1] * array.ndim
        shape[attributes.get("axis", 1)] = -1
        scale = scale.reshape(shape)
        zero = zero.reshape(shape) if zero is not None and zero.size > 1 else zero
    codes = array.astype(np.int32)
    if zero is not None:
        codes = codes - zero.astype(np.int32)
    return (codes.astype(np.float32) * scale.astype(np.float32)).astype(np.float32)


def _stretched(
    array: npt.NDArray[Any] | None, axis: int, size: int, shape: tuple[int, ...]
) -> npt.NDArray[Any] | None:
    if array is None:
        return None
    return np.take(np.repeat(array, size, axis), np.arange(shape[axis]), axis)


def _array(
    node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto], position: int
) -> npt.NDArray[Any] | None:
    """A constant operand; None where it is left out. Raises ModelError where it is no constant."""
    import onnx

    if position >= len(node.input) or not node.input[position]:
        return None
    name = node.input[position]
    if name not in tensors:
        raise ModelError(
            f"The operand {name!r} of the node {node.name or node.output[0]!r} ({node.op_type}) is not a "
            "constant, so that its weights cannot be dequantized."
        )
    array: npt.NDArray[Any] = onnx.numpy_helper.to_array(tensors[name])
    return array


def _unpacked(array: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.float32]:
    """Codes of ``bits`` along the last axis, ``count`` of them."""
    if bits == 8:
        return array[..., :count].astype(np.float32)
    both = np.stack([array & 15, array >> 4], axis=-1)
    return both.reshape(*array.shape[:-1], -1)[..., :count].astype(np.float32)


def _dequantized(
    node: onnx.NodeProto,
    codes: npt.NDArray[np.float32],
    scales: npt.NDArray[Any],
    zeros: npt.NDArray[Any] | None,
    bits: int,
) -> npt.NDArray[np.float32]:
    """The values of codes [rows, groups, size]."""
    rows, groups, _ = codes.shape
    if zeros is None:
        middle: npt.NDArray[np.float32] = np.full((rows, groups), 2 ** (bits - 1), np.float32)
    elif zeros.dtype == np.uint8:
        packed = zeros.reshape(rows, -1)
        middle = _unpacked(packed, bits, groups)
    else:
        middle = zeros.reshape(rows, groups).astype(np.float32)
    factor = scales.reshape(rows, groups, 1).astype(np.float32)
    return (factor * (codes - middle[..., None])).reshape(rows, -1)


def _product(
    node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto], added: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """MatMulNBits as MatMul with a float32 weight [inputs, outputs], and its bias as Add."""
    import onnx

    attributes = {item.name: item.i for item in node.attribute}
    columns, rows = int(attributes["K"]), int(attributes["N"])
    bits, group = int(attributes.get("bits", 4)), int(attributes["block_size"])
    if bits not in (4, 8) or (len(node.input) > 4 and node.input[4]):
        raise ModelError(
            f"The node {node.name or node.output[0]!r} (MatMulNBits) has a form that is not known."
        )
    packed, scales = _array(node, tensors, 1), _array(node, tensors, 2)
    assert packed is not None
    assert scales is not None
    name = node.input[1]
    if name not in added:
        codes = _unpacked(packed.reshape(rows, -1, group * bits // 8), bits, group)
        values = _dequantized(node, codes, scales, _array(node, tensors, 3), bits)[:, :columns]
        added[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(values.T), name)
    bias = node.input[5] if len(node.input) > 5 else ""
    output = f"{node.output[0]}/product" if bias else node.output[0]
    made = [onnx.helper.make_node("MatMul", [node.input[0], name], [output], name=node.name)]
    if bias:
        made.append(onnx.helper.make_node("Add", [output, bias], [node.output[0]], name=f"{node.name}/bias"))
    return made


def _table(
    node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto], added: dict[str, onnx.TensorProto]
) -> onnx.NodeProto:
    """GatherBlockQuantized as Gather of a float32 table."""
    import onnx

    attributes = {item.name: item.i for item in node.attribute}
    bits, group = int(attributes.get("bits", 4)), int(attributes.get("block_size", 128))
    packed, scales = _array(node, tensors, 0), _array(node, tensors, 2)
    assert packed is not None
    assert scales is not None
    if packed.dtype != np.uint8 or packed.ndim != 2 or attributes.get("gather_axis", 0):
        raise ModelError(
            f"The node {node.name or node.output[0]!r} (GatherBlockQuantized) has a form that is not known."
        )
    name = node.input[0]
    if name not in added:
        groups = scales.shape[1]
        width = packed.shape[1] * 8 // bits
        codes = np.pad(_unpacked(packed, bits, width), ((0, 0), (0, groups * group - width)))
        codes = codes.reshape(packed.shape[0], groups, group)
        values = _dequantized(node, codes, scales, _array(node, tensors, 3), bits)[:, :width]
        added[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
    return onnx.helper.make_node("Gather", [name, node.input[1]], list(node.output), name=node.name, axis=0)


def _drop_unused(model: onnx.ModelProto) -> None:
    """Drop initializers that nothing reads, and earlier forms of those that were made anew."""
    import onnx

    from assay.models.export.strip import remove_unused

    graph = model.graph
    last: dict[str, onnx.TensorProto] = {}
    for tensor in graph.initializer:
        last[tensor.name] = tensor
    kept = [last[name] for name in sorted(last)]
    made = onnx.GraphProto()
    made.initializer.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(made.initializer)
    remove_unused(model)
