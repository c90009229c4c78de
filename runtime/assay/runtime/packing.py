"""The one-file form of an artifact: an uncompressed ZIP whose entries' data start on 64-byte boundaries.

Any ZIP tool can list and extract it. Every byte outside the entries' data follows from the names, sizes and
checksums of the entries (fixed timestamps, no comments, padding in the extra field that Android's zipalign
also uses), so that the same entries give the same file, and a reader can check all of it.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from assay.errors import ArtifactError, StorageError

__all__ = ["ALIGNMENT", "Entry", "Region", "pack", "regions"]

ALIGNMENT = 64
CHUNK = 1 << 20

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_EXTRA = struct.Struct("<3H")
_ZIPALIGN = 0xD935
_VERSION = 10  # 1.0: stored entries
_UNIX = 3 << 8
_UTF8 = 1 << 11
_DATE = 0x21  # 1980-01-01, the earliest that ZIP can say; the time is midnight
_MODE = 0o100644 << 16
_LIMIT = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Region:
    """``size`` bytes at ``offset`` of the file at ``path``."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry: its name, size in bytes and CRC-32."""

    name: str
    size: int
    crc: int


def pack(stream: BinaryIO, contents: Iterable[tuple[str, bytes | Path]]) -> None:
    """Write ``contents`` (names to bytes, or to files to copy) to ``stream``, in their order.

    Raises StorageError when the file would grow beyond the 4 GiB that a plain ZIP can hold.
    """
    entries: list[Entry] = []
    offset = 0
    for name, content in contents:
        start = _data_start(offset, name)
        stream.seek(start)
        size, crc = _copy(content, stream)
        if start + size > _LIMIT:
            raise StorageError(
                f"The one-file form cannot hold {name}: it ends at 4 GiB.",
                hint="Write the artifact as a directory.",
            )
        entry = Entry(name=name, size=size, crc=crc)
        stream.seek(offset)
        stream.write(_local_header(entry, offset))
        entries.append(entry)
        offset = start + size
    stream.seek(offset)
    stream.write(_directory(entries))


def regions(path: Path) -> dict[str, Region]:
    """Where the data of each entry lies in the file at ``path``, after checking every byte around them.

    Raises ArtifactError when the file is not exactly what ``pack`` writes for its entries.
    """
    try:
        with path.open("rb") as stream:
            entries = _read_entries(stream)
            found = _check(stream, entries, path)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise ArtifactError(
            f"{path.name} is damaged, or not an artifact: {error}",
            hint="Build the artifact again, or fetch a fresh copy.",
        ) from None
    return found


def _copy(content: bytes | Path, stream: BinaryIO) -> tuple[int, int]:
    if isinstance(content, bytes):
        stream.write(content)
        return len(content), binascii.crc32(content)
    size = crc = 0
    with content.open("rb") as source:
        while chunk := source.read(CHUNK):
            stream.write(chunk)
            crc = binascii.crc32(chunk, crc)
            size += len(chunk)
    return size, crc


def _data_start(offset: int, name: str) -> int:
    """Where data start for an entry whose header starts at ``offset``: the next boundary that leaves room."""
    end = offset + _LOCAL.size + len(name.encode()) + _EXTRA.size
    return -(-end // ALIGNMENT) * ALIGNMENT


def _local_header(entry: Entry, offset: int) -> bytes:
    name = entry.name.encode()
    extra = _data_start(offset, entry.name) - offset - _LOCAL.size - len(name)
    sizes = (entry.crc, entry.size, entry.size)
    fields = (b"PK\x03\x04", _VERSION, _UTF8, 0, 0, _DATE, *sizes, len(name), extra)
    padding = _EXTRA.pack(_ZIPALIGN, extra - 4, ALIGNMENT).ljust(extra, b"\0")
    return _LOCAL.pack(*fields) + name + padding


def _directory(entries: Sequence[Entry]) -> bytes:
    """The central directory and the end record that follow the last entry's data."""
    records = bytearray()
    offset = 0
    for entry in entries:
        name = entry.name.encode()
        head = (b"PK\x01\x02", _VERSION | _UNIX, _VERSION, _UTF8, 0, 0, _DATE)
        sizes = (entry.crc, entry.size, entry.size)
        records += _CENTRAL.pack(*head, *sizes, len(name), 0, 0, 0, 0, _MODE, offset) + name
        offset = _data_start(offset, entry.name) + entry.size
    if offset + len(records) + _END.size > _LIMIT:
        raise StorageError("The one-file form ends at 4 GiB.", hint="Write the artifact as a directory.")
    count = len(entries)
    return bytes(records) + _END.pack(b"PK\x05\x06", 0, 0, count, count, len(records), offset, 0)


def _read_entries(stream: BinaryIO) -> list[Entry]:
    length = stream.seek(0, 2)
    if length < _END.size:
        raise ValueError("it is too short")
    stream.seek(length - _END.size)
    magic, _, _, count, _, size, offset, _ = _END.unpack(stream.read(_END.size))
    if magic != b"PK\x05\x06" or offset + size + _END.size != length:
        raise ValueError("it has no directory of entries at its end")
    stream.seek(offset)
    directory = stream.read(size)
    entries: list[Entry] = []
    position = 0
    for _ in range(count):
        fields = _CENTRAL.unpack_from(directory, position)
        crc, stored, length = fields[7], fields[9], fields[10]
        position += _CENTRAL.size
        name = directory[position : position + length].decode()
        position += length
        entries.append(Entry(name=name, size=stored, crc=crc))
    return entries


def _check(stream: BinaryIO, entries: Sequence[Entry], path: Path) -> dict[str, Region]:
    found: dict[str, Region] = {}
    offset = 0
    for entry in entries:
        header = _local_header(entry, offset)
        stream.seek(offset)
        if stream.read(len(header)) != header:
            raise ValueError(f"the header of entry {entry.name!r} is wrong")
        if entry.name in found:
            raise ValueError(f"entry {entry.name!r} appears twice")
        found[entry.name] = Region(path=path, offset=offset + len(header), size=entry.size)
        offset += len(header) + entry.size
    stream.seek(offset)
    if stream.read() != _directory(entries):
        raise ValueError("its directory of entries is wrong")
    return found
