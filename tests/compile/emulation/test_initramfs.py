from __future__ import annotations

import io
from pathlib import Path

from assay.compile.emulation.initramfs import shared_object_links, write_initramfs


def entries(data: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode and content of each entry of an archive in the format newc, read independently."""
    found = []
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        assert position % 4 == 0
        fields = [int(data[position + 6 + 8 * i : position + 14 + 8 * i], 16) for i in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[position + 110 : position + 110 + length - 1].decode()
        start = (position + 110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found.append((name, mode, data[start : start + size]))
        position = (start + size + 3) // 4 * 4


def test_archive_holds_folders_before_files_and_links(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"from disk")
    stream = io.BytesIO()
    files = {"/init": b"#!", "/a/b/odd": b"12345", "/a/x": tmp_path / "x", "/empty": b""}
    write_initramfs(stream, files, {"/c/link": "../a/x"})
    assert entries(stream.getvalue()) == [
        ("a", 0o040755, b""),
        ("a/b", 0o040755, b""),
        ("c", 0o040755, b""),
        ("a/b/odd", 0o100755, b"12345"),
        ("a/x", 0o100755, b"from disk"),
        ("empty", 0o100755, b""),
        ("init", 0o100755, b"#!"),
        ("c/link", 0o120777, b"../a/x"),
    ]


def test_libraries_are_found_by_their_short_names() -> None:
    names = dict.fromkeys(
        ["/l/libx.so.6.0.30", "/l/liby.so.1", "/l/liby.so.1.2", "/l/plain.so", "/l/z.so.0-a"]
    )
    assert shared_object_links(names) == {"/l/libx.so.6": "libx.so.6.0.30"}
