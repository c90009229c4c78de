"""The header of a safetensors file, checked against the file before the ``safetensors`` library reads it.

The format is https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import ModelError
from assay.models.sources.json_file import parse_object

__all__ = ["StoredTensor", "read_safetensors_header"]

_METADATA = "__metadata__"
_MAX_BYTES = 1 << 23  # over fifty thousand tensors in one file
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
}
"""Bits of an element by the format's name of its type."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor of a file: dtype by safetensors' name (``BF16``), row-major shape, size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def read_safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """Tensors by name, in the order of their data.

    Raises ModelError, in one sentence with the file's name, for a header that is longer than the file or than
    any model's, is not JSON, names a tensor twice or an unknown dtype, or whose tensors do not fill the file
    one behind the other, each with the bytes of its shape.
    """
    name = f"The header of {str(path)!r}"
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ModelError(
                    f"{str(path)!r} is not a safetensors file, or is truncated: it has {size} bytes."
                )
            if length > _MAX_BYTES:
                raise ModelError(f"{name} has {length} bytes, which no model needs.")
            header = parse_object(file.read(length), name)
    except OSError as error:
        raise ModelError(f"The file {str(path)!r} cannot be read: {error.strerror}.") from error
    metadata = header.pop(_METADATA, {})
    if not _is_text_map(metadata):
        raise ModelError(f"{name} is damaged: its {_METADATA} is not a map of texts.")
    placed = [_parse(name, key, entry) for key, entry in header.items()]
    placed.sort(key=lambda item: (item[1], item[0].size))
    end = 0
    for tensor, begin in placed:
        if begin != end:
            raise ModelError(
                f"{name} is damaged: the tensor {_short(tensor.name)} begins at {begin}, "
                f"and the data before it end at {end}."
            )
        end = begin + tensor.size
    if 8 + length + end != size:
        raise ModelError(
            f"The file {str(path)!r} is truncated or damaged: its tensors need {8 + length + end} bytes, "
            f"and it has {size}."
        )
    return {tensor.name: tensor for tensor, _ in placed}


def _parse(header: str, name: str, entry: Any) -> tuple[StoredTensor, int]:
    """A tensor and where its data begin, in bytes from the end of the header."""
    what = f"{header} is damaged: the tensor {_short(name)}"
    if not isinstance(entry, Mapping) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"{what} does not have a dtype, a shape and offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ModelError(f"{what} has the unknown dtype {_short(str(dtype))}.")
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise ModelError(f"{what} has a shape or offsets that are not lists of sizes.")
    begin, end = offsets
    bits = math.prod(shape) * _BITS[dtype]
    if bits % 8 or end - begin != bits // 8:
        raise ModelError(f"{what} has {end - begin} bytes; its shape and dtype need {-(-bits // 8)}.")
    return StoredTensor(name=name, dtype=dtype, shape=tuple(shape), size=end - begin), begin


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 64
        and all(type(value) is int and 0 <= value < 1 << 63 for value in values)
    )


def _is_text_map(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(value, str) for value in values.values())


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
