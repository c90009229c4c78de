"""The header of a GGUF file, checked against the file before anything is allocated for what it claims.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
There is one parser, so that what was checked is what is read: ``gguf.GGUFReader`` cuts arrays that leave the
file short without a word, and takes seconds for a vocabulary.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from assay.errors import MissingDependencyError, ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["GgufHeader", "GgufTensor", "GgufValue", "read_gguf_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT_KEY = "general.alignment"
_DEFAULT_ALIGNMENT = 32
_MAX_DIMS = 4
# Far beyond any model (the largest vocabularies have 262,144 tokens and 580,604 merges), and small enough
# that what a hostile file makes us walk through takes seconds and some hundred megabytes.
_MAX_ENTRIES = 1 << 16
_MAX_STRINGS = 1 << 21
_MAX_KEY_BYTES = (1 << 16) - 1
# The least bytes of a key-value pair (empty key, type, one byte) and of a tensor's description.
_LEAST_PAIR, _LEAST_TENSOR = 13, 24

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_FORMATS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}

GgufValue: TypeAlias = "bool | int | float | str | list[str] | npt.NDArray[np.generic]"
"""A value of a header: arrays of strings are lists, arrays of numbers are NumPy's, mapped from the file."""


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """One tensor: its type by name (``Q4_1``), its row-major shape, and its place in the file in bytes."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of itself; ``data_offset`` and the tensors' places count from its beginning."""

    path: Path
    version: int
    metadata: Mapping[str, GgufValue]
    tensors: Mapping[str, GgufTensor]
    data_offset: int


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of the GGUF file at ``path``.

    Every length, count and offset is compared with the size of the file before it is used. Raises ModelError,
    in one sentence with the file's name, for a file that is truncated, of another version or byte order, or
    that has a text that is not UTF-8, a name twice, an unknown value or tensor type, a tensor whose data lie
    outside the file, off the alignment or over another's, or counts no model has.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise ModelError(f"The model {str(path)!r} is an empty file.") from None
    except OSError as error:
        raise ModelError(f"The model {str(path)!r} cannot be read: {error.strerror}.") from error
    cursor = _Cursor(mapped, path)
    version, tensors, pairs = _read_start(cursor)
    metadata = _read_metadata(cursor, pairs)
    described = [_read_tensor(cursor) for _ in range(tensors)]
    alignment = _alignment(cursor, metadata)
    data_offset = cursor.position + -cursor.position % alignment
    placed = _place(cursor, described, data_offset, alignment)
    return GgufHeader(path=path, version=version, metadata=metadata, tensors=placed, data_offset=data_offset)


class _Cursor:
    """A position in a mapped file; each read is checked against the file's end first."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.size = len(data)
        self.position = 0
        self.strings = 0

    def error(self, what: str) -> ModelError:
        return ModelError(f"The GGUF file {str(self.path)!r} {what}.")

    def advance(self, count: int, what: str) -> int:
        """The position before ``count`` bytes, behind which the cursor is then."""
        start = self.position
        if count > self.size - start:
            raise self.error(f"is truncated or damaged: {what} needs {count} bytes at {start} of {self.size}")
        self.position = start + count
        return start

    def number(self, code: str, what: str) -> Any:
        start = self.advance(struct.calcsize(code), what)
        return struct.unpack_from(code, self.data, start)[0]

    def string(self, what: str, limit: int | None = None) -> str:
        length = self.number("<Q", what)
        if limit is not None and length > limit:
            raise self.error(f"is damaged: {what} has {length} bytes, over {limit}")
        start = self.advance(length, what)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"is damaged: {what} at {start} is not UTF-8") from None

    def count(self, what: str, least: int) -> int:
        """A count of entries of at least ``least`` bytes each, which must fit what is left of the file."""
        count = self.number("<Q", f"the number of {what}")
        if count > _MAX_ENTRIES or count * least > self.size - self.position:
            raise self.error(f"is damaged: it claims {count} {what}")
        return int(count)


def _read_start(cursor: _Cursor) -> tuple[int, int, int]:
    """Version, number of tensors, number of key-value pairs."""
    start = cursor.advance(4, "the magic")
    if cursor.data[start : start + 4] != _MAGIC:
        raise ModelError(f"{str(cursor.path)!r} is not a GGUF file: it does not begin with 'GGUF'.")
    version = cursor.number("<I", "the version")
    if version not in _VERSIONS:
        if version & 0xFFFF == 0:
            raise cursor.error("is big-endian, which is not read")
        raise cursor.error(f"has version {version}; versions 2 and 3 are read")
    start = cursor.position
    tensors = cursor.count("tensors", _LEAST_TENSOR)
    pairs = cursor.count("key-value pairs", _LEAST_PAIR)
    return version, tensors, pairs


def _read_metadata(cursor: _Cursor, pairs: int) -> dict[str, GgufValue]:
    metadata: dict[str, GgufValue] = {}
    for _ in range(pairs):
        key = cursor.string("a key", _MAX_KEY_BYTES)
        if key in metadata:
            raise cursor.error(f"is damaged: it has the key {key!r} twice")
        metadata[key] = _read_value(cursor, key)
    return metadata


def _read_value(cursor: _Cursor, key: str) -> GgufValue:
    what = f"the value of {_short(key)}"
    kind = cursor.number("<I", what)
    if kind == _STRING:
        return cursor.string(what)
    if kind == _ARRAY:
        return _read_array(cursor, what)
    if kind not in _FORMATS:
        raise cursor.error(f"is damaged: {what} has the unknown type {kind}")
    value = cursor.number(_FORMATS[kind], what)
    if kind == _BOOL:
        if value > 1:
            raise cursor.error(f"is damaged: {what} is neither true nor false")
        return bool(value)
    return value  # type: ignore[no-any-return]


def _read_array(cursor: _Cursor, what: str) -> list[str] | npt.NDArray[np.generic]:
    import numpy as np

    kind = cursor.number("<I", what)
    count = cursor.number("<Q", what)
    if kind == _STRING:
        cursor.strings += count
        if count * 8 > cursor.size - cursor.position or cursor.strings > _MAX_STRINGS:
            raise cursor.error(f"is damaged: {what} claims {count} strings")
        return [cursor.string(what) for _ in range(count)]
    if kind not in _SCALARS:
        raise cursor.error(f"is damaged: {what} is an array of the unknown type {kind}")
    dtype = np.dtype(_SCALARS[kind])
    start = cursor.advance(count * dtype.itemsize, what)
    if not count:
        return np.empty(0, dtype)
    array = np.frombuffer(cursor.data, dtype, count, start)
    return array.view(np.bool_) if kind == _BOOL else array


def _read_tensor(cursor: _Cursor) -> GgufTensor:
    """A tensor's description; its offset still counts from the beginning of the data."""
    import numpy as np

    name = cursor.string("the name of a tensor", _MAX_KEY_BYTES)
    what = f"the tensor {_short(name)}"
    rank = cursor.number("<I", what)
    if not 1 <= rank <= _MAX_DIMS:
        raise cursor.error(f"is damaged: {what} has {rank} dimensions")
    shape = tuple(int(cursor.number("<Q", what)) for _ in range(rank))[::-1]
    kind = cursor.number("<I", what)
    offset = int(cursor.number("<Q", what))
    if kind not in _tensor_types():
        raise cursor.error(f"has the unknown type {kind} for {what}")
    type_name, block, block_bytes = _tensor_types()[kind]
    elements = math.prod(shape)
    if not 0 < elements <= np.iinfo(np.int64).max or shape[-1] % block:
        raise cursor.error(f"is damaged: {what} has the shape {shape}, which {type_name} cannot store")
    return GgufTensor(
        name=name, type=type_name, shape=shape, offset=offset, size=elements // block * block_bytes
    )


_TYPES: dict[int, tuple[str, int, int]] = {}


def _tensor_types() -> dict[int, tuple[str, int, int]]:
    """For each known type its name, the elements of a block and the bytes of a block."""
    if not _TYPES:
        try:
            from gguf.constants import GGML_QUANT_SIZES
        except ImportError:
            raise MissingDependencyError("gguf", "compile") from None
        _TYPES.update({int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()})
    return _TYPES


def _alignment(cursor: _Cursor, metadata: Mapping[str, GgufValue]) -> int:
    alignment = metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
    # A bool is an int to Python; a power of two has one bit.
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.error(f"is damaged: its alignment is {_short(str(alignment))}, not a power of two")
    return alignment


def _place(
    cursor: _Cursor, described: Iterable[GgufTensor], data_offset: int, alignment: int
) -> dict[str, GgufTensor]:
    """The tensors by name, in the order of the header, with checked places in the file."""
    placed: dict[str, GgufTensor] = {}
    for tensor in described:
        if tensor.name in placed:
            raise cursor.error(f"is damaged: it has the tensor {_short(tensor.name)} twice")
        start = data_offset + tensor.offset
        if tensor.offset % alignment:
            raise cursor.error(
                f"is damaged: the tensor {_short(tensor.name)} is off the alignment {alignment}"
            )
        if start + tensor.size > cursor.size:
            raise cursor.error(
                f"is truncated or damaged: the tensor {_short(tensor.name)} needs {tensor.size} bytes "
                f"at {start} of {cursor.size}"
            )
        placed[tensor.name] = GgufTensor(
            name=tensor.name, type=tensor.type, shape=tensor.shape, offset=start, size=tensor.size
        )
    end, last = 0, ""
    for tensor in sorted(placed.values(), key=lambda item: item.offset):
        if tensor.offset < end:
            raise cursor.error(f"is damaged: the tensors {_short(last)} and {_short(tensor.name)} overlap")
        end, last = tensor.offset + tensor.size, tensor.name
    return placed


def _short(text: str) -> str:
    """``text`` quoted, and cut where a hostile file made it long."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
