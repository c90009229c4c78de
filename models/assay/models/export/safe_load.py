"""Loads an ONNX file that is not trusted: whatever it says, nothing outside its folder is read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from assay.errors import ExternalDataError, ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["LoadedModel", "external_files", "load_safely", "parse_model", "tensors_of"]


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with all its tensors in memory, and the digest of every byte that it was read from."""

    model: onnx.ModelProto
    digest: str


def load_safely(path: Path) -> LoadedModel:
    """Read the model at ``path`` and its external data.

    Raises ModelError when the file cannot be read, is not ONNX or is truncated, and ExternalDataError, naming
    the tensor, when its external data is missing, too short, outside the model's folder or behind a link.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"The model {str(path)!r} cannot be read: {error.strerror}.") from error
    model = parse_model(content, str(path))
    digest = hashlib.sha256(content)
    for tensor in tensors_of(model):
        if _is_external(tensor):
            data = _read_external(tensor, path.parent)
            digest.update(data)
            tensor.raw_data = data
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return LoadedModel(model=model, digest=f"sha256:{digest.hexdigest()}")


def parse_model(content: bytes, name: str) -> onnx.ModelProto:
    """The model in ``content``, external data not read; raises ModelError naming ``name`` if it is none."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not content:
        raise ModelError(f"The model {name!r} is an empty file.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(f"{name!r} is not an ONNX model, or is truncated: {error}.") from error
    # Protobuf accepts much that is no model (text, other messages), and a cut between two fields.
    if not (model.ir_version > 0 and model.HasField("graph") and model.opset_import and model.graph.output):
        raise ModelError(f"{name!r} is not an ONNX model, or is truncated: it lacks a graph or its versions.")
    return model


def external_files(path: Path) -> set[str]:
    """What the model at ``path`` names as files of external data; none where it cannot be read.

    Only names: nothing says that such files are there, or may be read.
    """
    try:
        model = parse_model(path.read_bytes(), str(path))
    except (OSError, ModelError):
        return set()
    entries = (entry for tensor in tensors_of(model) for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == "location"}


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _is_external(tensor: onnx.TensorProto) -> bool:
    # A tensor with entries but without the flag is just as external to a careless reader.
    return bool(tensor.data_location == tensor.EXTERNAL or tensor.external_data)


def _read_external(tensor: onnx.TensorProto, folder: Path) -> bytes:
    """The bytes of an external tensor; raises ExternalDataError."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    parts = _location_parts(tensor, location)
    with ExitStack() as stack:
        descriptor = _open_beneath(tensor, folder, parts, stack)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _error(tensor, location, "is not a regular file")
        if status.st_nlink > 1:
            raise _error(tensor, location, "is a hard link, which may lead out of the model's folder")
        offset = _number(tensor, entries, "offset", 0)
        expected = _byte_count(tensor)
        length = _number(tensor, entries, "length", expected)
        if length != expected:
            raise _error(tensor, location, f"gives {length} bytes where its shape needs {expected}")
        if offset + length > status.st_size:
            raise _error(
                tensor,
                location,
                f"has {status.st_size} bytes, but bytes {offset} to {offset + length} are needed",
            )
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(offset)
            return file.read(length)


def _location_parts(tensor: onnx.TensorProto, location: str) -> tuple[str, ...]:
    path = PurePosixPath(location)
    # A backslash or a colon is a path of another system; no exporter writes them.
    if not location or "\0" in location or "\\" in location or path.is_absolute() or ":" in location[:2]:
        raise _error(tensor, location, "is not a relative path")
    if ".." in path.parts or not path.parts:
        raise _error(tensor, location, "leads out of the model's folder")
    return path.parts


def _open_beneath(tensor: onnx.TensorProto, folder: Path, parts: tuple[str, ...], stack: ExitStack) -> int:
    """Open ``parts`` below ``folder`` one by one, refusing links, with no gap between check and use."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    stack.callback(os.close, directory)
    location = "/".join(parts)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        # Non-blocking, so that a named pipe is refused instead of waited for.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | (0 if last else os.O_DIRECTORY)
        try:
            if stat.S_ISLNK(os.stat(part, dir_fd=directory, follow_symlinks=False).st_mode):
                raise _error(tensor, location, "is behind a symbolic link")
            directory = os.open(part, flags, dir_fd=directory)
        except FileNotFoundError:
            raise _error(tensor, location, "is missing") from None
        except OSError as error:
            raise _error(tensor, location, f"cannot be opened: {error.strerror}") from error
        stack.callback(os.close, directory)
    return directory


def _number(tensor: onnx.TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit()):
        raise _error(tensor, entries.get("location", ""), f"has the {key} {text!r}, which is not a number")
    return int(text)


def _byte_count(tensor: onnx.TensorProto) -> int:
    import math

    import onnx

    try:
        element = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        raise _error(tensor, "", f"has the unknown element type {tensor.data_type}") from None
    if any(size < 0 for size in tensor.dims):
        raise _error(tensor, "", "has a negative dimension")
    count = int(math.prod(tensor.dims))
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    packed = {"UINT4": 2, "INT4": 2, "FLOAT4E2M1": 2, "UINT2": 4, "INT2": 4}.get(name)
    return -(-count // packed) if packed else count * int(element.itemsize)


def _error(tensor: onnx.TensorProto, location: str, what: str) -> ExternalDataError:
    return ExternalDataError(
        f"The external data {location!r} of the tensor {tensor.name!r} {what}.",
        hint="Keep a model's external data as plain files inside the model's folder.",
    )
