from __future__ import annotations

import random
import subprocess
import sys
import zipfile

import pytest

from assay.errors import ArtifactError, StorageError
from assay.runtime import packing
from assay.runtime.packing import pack, regions


@pytest.fixture
def archive(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"from a file" * 100)
    path = tmp_path / "x.assay"
    with path.open("w+b") as stream:
        pack(stream, [("a/b", b"abc"), ("empty", b""), ("naïve", source), ("z", bytes(200))])
    return path


def test_data_are_where_the_regions_say_and_aligned(archive, tmp_path):
    found = regions(archive)
    data = archive.read_bytes()
    contents = {name: data[r.offset : r.offset + r.size] for name, r in found.items()}
    assert contents == {"a/b": b"abc", "empty": b"", "naïve": b"from a file" * 100, "z": bytes(200)}
    assert {region.offset % 64 for region in found.values()} == {0}


def test_zip_tools_read_it(archive):
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == ["a/b", "empty", "naïve", "z"]
        assert opened.read("a/b") == b"abc"
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    listing = [sys.executable, "-m", "zipfile", "-t", str(archive)]
    assert subprocess.run(listing, check=False, capture_output=True).returncode == 0


def test_every_flipped_bit_outside_the_data_is_noticed(archive, tmp_path):
    original = archive.read_bytes()
    inside = {i for r in regions(archive).values() for i in range(r.offset, r.offset + r.size)}
    damaged = tmp_path / "damaged.assay"
    for position in set(range(len(original))) - inside:
        data = bytearray(original)
        data[position] ^= 1 << random.Random(position).randrange(8)
        damaged.write_bytes(data)
        with pytest.raises(ArtifactError, match=r"damaged\.assay is damaged"):
            regions(damaged)


@pytest.mark.parametrize("cut", [0, 1, 21, 22, 100, -1])
def test_truncated(archive, cut):
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(ArtifactError):
        regions(archive)


def test_another_zip_is_refused(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as stream:
        stream.writestr("a", "abc")
    with pytest.raises(ArtifactError, match="not an artifact"):
        regions(path)


def test_entries_twice_are_refused(tmp_path):
    path = tmp_path / "x"
    with path.open("w+b") as stream:
        pack(stream, [("a", b"1"), ("a", b"2")])
    with pytest.raises(ArtifactError, match="twice"):
        regions(path)


def test_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_LIMIT", 1000)
    with (tmp_path / "x").open("w+b") as stream, pytest.raises(StorageError, match="4 GiB"):
        pack(stream, [("a", bytes(2000))])
