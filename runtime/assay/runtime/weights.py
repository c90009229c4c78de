"""Weights on disk: a safetensors file in which the data of every tensor start on a 64-byte boundary.

safetensors wants tensors' data to follow each other without gaps. Tensors whose size is a multiple of 64
bytes come first, by name; the others follow, by name, each with a padding tensor behind it, named
``__padding__.N``, of at most 63 bytes (dtype U8, zeros). The header is padded with spaces, as the format
allows. Any safetensors reader can read the file; this one hides the padding.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from assay.errors import ArtifactError
from assay.runtime.packing import ALIGNMENT, Region

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["TensorInfo", "map_weights", "read_header", "save_weights"]

PADDING = "__padding__."
_HEADER_LIMIT = 100_000_000  # as the safetensors library has it

# safetensors' name, NumPy's name, dtype in memory. NumPy has no bfloat16: its bits travel as uint16.
_DTYPES = (
    ("BOOL", "bool", "?"),
    ("U8", "uint8", "u1"),
    ("I8", "int8", "i1"),
    ("I16", "int16", "<i2"),
    ("U16", "uint16", "<u2"),
    ("F16", "float16", "<f2"),
    ("BF16", "bfloat16", "<u2"),
    ("I32", "int32", "<i4"),
    ("F32", "float32", "<f4"),
    ("I64", "int64", "<i8"),
    ("F64", "float64", "<f8"),
)
_BY_NUMPY = {name: code for code, name, _ in _DTYPES}
_BY_CODE = {code: (name, np.dtype(memory)) for code, name, memory in _DTYPES}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor of a file: dtype by its NumPy name (or ``bfloat16``); ``start`` and ``size`` in bytes.

    ``start`` counts from the beginning of the safetensors file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def save_weights(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write ``tensors`` to ``path``, atomically; the same tensors give the same bytes in any order.

    Arrays of any strides and byte order are accepted, and of ``ml_dtypes.bfloat16``. Raises ValueError for a
    dtype that has no name in safetensors or a reserved tensor name, and StorageError when it cannot write.
    """
    from assay.runtime.atomic import replace_file  # only writers need it

    for name, tensor in tensors.items():
        if tensor.dtype.name not in _BY_NUMPY:
            raise ValueError(f"tensor {name!r}: dtype {tensor.dtype.name} cannot be stored")
        if name.startswith("__"):
            raise ValueError(f"tensor name {name!r} is reserved")
    with replace_file(path) as temporary, temporary.open("r+b") as stream:
        _write(stream, tensors)


def _write(stream: BinaryIO, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % ALIGNMENT != 0, name))
    header: dict[str, Any] = {}
    pads: list[int] = []
    position = 0
    for name in order:
        tensor = tensors[name]
        code, shape, size = _BY_NUMPY[tensor.dtype.name], list(tensor.shape), tensor.nbytes
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [position, position + size]}
        position += size
        pad = -size % ALIGNMENT if name != order[-1] else 0
        if pad:
            key = f"{PADDING}{sum(map(bool, pads))}"
            header[key] = {"dtype": "U8", "shape": [pad], "data_offsets": [position, position + pad]}
            position += pad
        pads.append(pad)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    stream.write(len(text).to_bytes(8, "little") + text)
    for name, pad in zip(order, pads, strict=True):
        stream.write(_little_endian_bytes(tensors[name]).data)
        stream.write(bytes(pad))


def _little_endian_bytes(tensor: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The elements of ``tensor`` in C order, little-endian, without a copy where it is that already."""
    memory = _BY_CODE[_BY_NUMPY[tensor.dtype.name]][1]
    bits = tensor.view(memory) if tensor.dtype.name == "bfloat16" else tensor.astype(memory, copy=False)
    return np.ascontiguousarray(bits).reshape(-1).view(np.uint8)


def map_weights(source: Path | Region) -> dict[str, npt.NDArray[Any]]:
    """Tensors by name, in the order of the file, mapped into memory copy-on-write.

    ``source`` is a file, or the part of a file that holds the safetensors data. Nothing is read until it is
    used, and what is written stays in this process. The data of a file that ``save_weights`` wrote are
    64-byte aligned. bfloat16 comes as uint16 with the same bits. Raises ArtifactError for a damaged file.
    """
    region = _whole(source) if isinstance(source, Path) else source
    infos = read_header(region)
    with region.path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for info in infos:
        memory = _BY_CODE[_BY_NUMPY[info.dtype]][1]
        count = math.prod(info.shape)
        flat = (
            np.frombuffer(mapped, memory, count, region.offset + info.start) if count else np.empty(0, memory)
        )
        tensors[info.name] = flat.reshape(info.shape)
    return tensors


def read_header(source: Path | Region) -> list[TensorInfo]:
    """What a safetensors file holds, in the order of its data and without the padding.

    Raises ArtifactError when the header is damaged, or its offsets do not cover the file exactly.
    """
    region = _whole(source) if isinstance(source, Path) else source
    try:
        return [info for info in _parse(region) if not info.name.startswith(PADDING)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"The weights in {region.path.name} are damaged: {error}") from None


def _whole(path: Path) -> Region:
    return Region(path=path, offset=0, size=path.stat().st_size)


def _parse(region: Region) -> Iterator[TensorInfo]:
    with region.path.open("rb") as stream:
        stream.seek(region.offset)
        length = int.from_bytes(stream.read(min(8, region.size)), "little")
        if region.size < 8 or length > min(region.size - 8, _HEADER_LIMIT):
            raise ValueError("the header is longer than the file")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        dtype, memory = _BY_CODE[entry["dtype"]]
        shape = tuple(entry["shape"])
        if any(not isinstance(size, int) or size < 0 for size in shape):
            raise ValueError(f"tensor {name!r} has the shape {shape}")
        if begin != position or end - begin != math.prod(shape) * memory.itemsize:
            raise ValueError(f"tensor {name!r} does not fit its place")
        yield TensorInfo(name=name, dtype=dtype, shape=shape, start=8 + length + begin, size=end - begin)
        position = end
    if 8 + length + position != region.size:
        raise ValueError("the tensors do not fill the file")
