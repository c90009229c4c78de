"""Sizes of a model's weights, and copies of its graph without them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import onnx

__all__ = ["INLINE_BYTES", "save", "weight_bytes", "without_weights"]

# Protobuf messages end at 2 GiB; beyond this, weights travel beside the graph.
INLINE_BYTES = 1 << 30
# Tensors up to this many bytes may hold shapes or axes that checks and inference need.
_SMALL_BYTES = 4096
_ALIGNMENT = 64


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initializers, from their shapes; protobuf would serialise everything to tell."""
    return sum(_tensor_bytes(tensor) for tensor in model.graph.initializer)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large initializers have become inputs."""
    import onnx

    light = _without_initializers(model)
    graph = light.graph
    declared = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if _tensor_bytes(tensor) <= _SMALL_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def save(model: onnx.ModelProto, path: Path, data_name: str) -> bool:
    """Write ``model`` to ``path``, its weights to ``data_name`` beside it when they are over 1 GiB.

    The same model gives the same bytes, and is not changed. Returns whether the weights were written apart.
    """
    if weight_bytes(model) <= INLINE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return False
    light = _without_initializers(model)
    with (path.parent / data_name).open("wb") as data:
        for tensor in model.graph.initializer:
            light.graph.initializer.append(
                _moved_out(tensor, data, data_name) if _tensor_bytes(tensor) > _SMALL_BYTES else tensor
            )
    path.write_bytes(light.SerializeToString(deterministic=True))
    return True


def _moved_out(tensor: onnx.TensorProto, data: BinaryIO, data_name: str) -> onnx.TensorProto:
    """A stand-in for ``tensor``, whose bytes are appended to ``data`` at the next multiple of 64."""
    import onnx

    data.write(bytes(-data.tell() % _ALIGNMENT))
    content = tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes()
    moved = onnx.TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", data_name), ("offset", data.tell()), ("length", len(content))):
        moved.external_data.add(key=key, value=str(value))
    data.write(content)
    return moved


def _without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name or "main"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    return light


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    import onnx

    try:
        element = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return 0
    return int(math.prod(tensor.dims)) * int(element.itemsize)
