"""Sizes of a model's weights, and copies of its graph without them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from assay.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "INLINE_BYTES",
    "save",
    "tensor_bytes",
    "weight_bytes",
    "without_initializers",
    "without_weights",
    "write_external",
]

# Weights beyond this lie beside the graph: protobuf copies what is inside it several times on its way in and
# out, and ends at 2 GiB.
INLINE_BYTES = 1 << 26
# Tensors up to this many bytes may hold shapes or axes that checks and inference need.
_SMALL_BYTES = 4096
_ALIGNMENT = 64


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initializers, from their shapes; protobuf would serialise everything to tell."""
    return sum(tensor_bytes(tensor) for tensor in model.graph.initializer)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large initializers have become inputs."""
    import onnx

    light = without_initializers(model)
    graph = light.graph
    declared = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if tensor_bytes(tensor) <= _SMALL_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def save(model: onnx.ModelProto, path: Path, data_name: str) -> dict[str, str]:
    """Write ``model`` to ``path``, its weights to ``data_name`` beside it when they are over 64 MiB.

    The same model gives the same bytes, and is not changed. Returns the SHA-256 of each file by its name.
    Raises ModelError for a weight whose bytes do not fit its shape.
    """
    if weight_bytes(model) <= INLINE_BYTES:
        return {path.name: _write(path, model.SerializeToString(deterministic=True))}
    import onnx

    light = without_initializers(model)
    digest = hashlib.sha256()
    with (path.parent / data_name).open("wb") as data:
        for tensor in model.graph.initializer:
            size = tensor_bytes(tensor)
            if size <= _SMALL_BYTES:
                light.graph.initializer.append(tensor)
                continue
            content = tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes()
            if len(content) != size:
                raise ModelError(
                    f"The weight {tensor.name!r} has {len(content)} bytes; its shape needs {size}."
                )
            moved = write_external(data, data_name, content, digest)
            moved.name, moved.data_type = tensor.name, tensor.data_type
            moved.dims.extend(tensor.dims)
            light.graph.initializer.append(moved)
    graph_digest = _write(path, light.SerializeToString(deterministic=True))
    return {path.name: graph_digest, data_name: digest.hexdigest()}


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def write_external(
    data: BinaryIO, data_name: str, content: bytes | memoryview, digest: hashlib._Hash | None = None
) -> onnx.TensorProto:
    """Append ``content`` to ``data`` at the next multiple of 64; a tensor without name or shape for it.

    ``digest`` is brought up to date with what is written.
    """
    import onnx

    padding = bytes(-data.tell() % _ALIGNMENT)
    data.write(padding)
    if digest is not None:
        digest.update(padding)
        digest.update(content)
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    size = content.nbytes if isinstance(content, memoryview) else len(content)
    for key, value in (("location", data_name), ("offset", data.tell()), ("length", size)):
        tensor.external_data.add(key=key, value=str(value))
    data.write(content)
    return tensor


def without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that has no initializers."""
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


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor from its shape and element type; 0 where that is unknown."""
    import onnx

    try:
        element = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return 0
    return int(math.prod(tensor.dims)) * int(element.itemsize)
