from __future__ import annotations

import hashlib
import stat

import pytest

from assay.errors import ArtifactError
from assay.runtime import libraries
from assay.runtime.libraries import cache_folder, extracted
from assay.runtime.packing import Region

CONTENT = b"some code"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def region(tmp_path):
    path = tmp_path / "packed"
    path.write_bytes(b"xx" + CONTENT + b"yy")
    return Region(path=path, offset=2, size=len(CONTENT))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "assay" / "libraries"


def test_extracted_once(region, cache):
    path = extracted(region, DIGEST, "model.so")
    assert path == cache / DIGEST / "model.so"
    assert path.read_bytes() == CONTENT
    status = path.stat()
    assert extracted(region, DIGEST, "model.so").stat().st_mtime_ns == status.st_mtime_ns


def test_damaged_copy_is_replaced(region, cache):
    path = extracted(region, DIGEST, "model.so")
    path.write_bytes(b"evil code")
    assert extracted(region, DIGEST, "model.so").read_bytes() == CONTENT


def test_content_with_another_digest_is_refused(region, cache):
    with pytest.raises(ArtifactError, match=r"model\.so.*digest"):
        extracted(region, "0" * 64, "model.so")
    assert not (cache / ("0" * 64)).exists()


def test_folder_is_private(cache):
    folder = cache_folder()
    assert folder == cache
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_folder_that_others_can_write_is_not_used(region, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert cache_folder() is None
    path = extracted(region, DIGEST, "model.so")
    assert cache not in path.parents
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(libraries._temporary_folder().stat().st_mode) == 0o700


def test_without_a_writable_cache(region, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert extracted(region, DIGEST, "model.so").read_bytes() == CONTENT
