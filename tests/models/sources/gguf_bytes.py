"""GGUF files byte by byte, to make those that no writer would."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

UINT8, UINT32, STRING, ARRAY, BOOL = 0, 4, 8, 9, 7


def text(value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(
    name: str | bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0, rank: int | None = None
) -> bytes:
    """A tensor's description; ``shape`` is GGUF's, fastest first, kind 0 is F32."""
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    rank = len(shape) if rank is None else rank
    return text(name) + struct.pack("<I", rank) + sizes + struct.pack("<IQ", kind, offset)


@dataclass
class Gguf:
    """A file in the making; counts that are None are right."""

    pairs: list[bytes] = field(default_factory=list)
    tensors: list[bytes] = field(default_factory=list)
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    pair_count: int | None = None
    alignment: int = 32

    def content(self) -> bytes:
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        pair_count = len(self.pairs) if self.pair_count is None else self.pair_count
        header = self.magic + struct.pack("<IQQ", self.version, tensor_count, pair_count)
        header += b"".join(self.pairs) + b"".join(self.tensors)
        return header + bytes(-len(header) % self.alignment) + self.data
