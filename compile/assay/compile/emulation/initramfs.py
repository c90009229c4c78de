"""The file system of an emulated machine: a cpio archive that Linux unpacks into memory as it starts.

The format is "newc", as in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

__all__ = ["shared_object_links", "write_initramfs"]

_DIRECTORY, _FILE, _LINK = 0o040755, 0o100755, 0o120777


def write_initramfs(stream: BinaryIO, files: Mapping[str, Path | bytes], links: Mapping[str, str]) -> None:
    """Write ``files`` by absolute path, executable by all, symbolic ``links`` by path, and their folders."""
    paths = [PurePosixPath(name) for name in (*files, *links)]
    folders = sorted({str(folder) for path in paths for folder in path.parents if str(folder) != "/"})
    number = 0
    for name in folders:
        _write_entry(stream, number := number + 1, name, _DIRECTORY, b"")
    for name, content in sorted(files.items()):
        data = content if isinstance(content, bytes) else content.read_bytes()
        _write_entry(stream, number := number + 1, name, _FILE, data)
    for name, target in sorted(links.items()):
        _write_entry(stream, number := number + 1, name, _LINK, target.encode())
    _write_entry(stream, 0, "/TRAILER!!!", 0, b"")


def shared_object_links(names: Mapping[str, object]) -> dict[str, str]:
    """Links from the names by which the loader looks for libraries: ``libx.so.1`` for ``libx.so.1.2.3``."""
    links = {}
    for name in names:
        found = re.fullmatch(r"(.*\.so\.\d+)\.[\d.]+", name)
        if found and found[1] not in names:
            links[found[1]] = PurePosixPath(name).name
    return links


def _write_entry(stream: BinaryIO, number: int, path: str, mode: int, data: bytes) -> None:
    name = path.lstrip("/").encode() + b"\0"
    # Inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum.
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    stream.write(header + b"\0" * (-len(header) % 4))
    stream.write(data + b"\0" * (-len(data) % 4))
