"""Sizes of a model's weights, and copies of its graph without them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["INLINE_BYTES", "save", "weight_bytes", "without_weights"]

# Protobuf messages end at 2 GiB; beyond this, weights travel beside the graph.
INLINE_BYTES = 1 << 30
# Tensors up to this many bytes may hold shapes or axes that checks and inference need.
_SMALL_BYTES = 4096


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initializers, from their shapes; protobuf would serialise everything to tell."""
    return sum(_tensor_bytes(tensor) for tensor in model.graph.initializer)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large initializers have become inputs."""
    import onnx

    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name or "main"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    declared = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if _tensor_bytes(tensor) <= _SMALL_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def save(model: onnx.ModelProto, path: Path, data_name: str) -> bool:
    """Write ``model`` to ``path``, its weights to ``data_name`` beside it when they are over 1 GiB.

    The same model gives the same bytes. Returns whether the weights were written apart.
    """
    import onnx

    if weight_bytes(model) > INLINE_BYTES:
        onnx.save_model(model, path, save_as_external_data=True, location=data_name, size_threshold=1024)
        return True
    path.write_bytes(model.SerializeToString(deterministic=True))
    return False


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    import onnx

    try:
        element = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return 0
    return int(math.prod(tensor.dims)) * int(element.itemsize)
