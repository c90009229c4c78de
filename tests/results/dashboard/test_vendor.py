from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import msgspec
import pytest

from assay.errors import RecordError
from assay.results.dashboard import vendor

HERE = Path(__file__).parent
STATIC = Path(vendor.__file__).parent / "static" / "vendor"
ASV = Path(vendor.__file__).parent / "asv_vendor"
# Packages without a file of their licence: their scripts begin with it.
NOTICES = {"flot-orderbars": "Released under the MIT license"}


@pytest.mark.parametrize("folder", [STATIC, ASV, HERE / "vendor"], ids=["static", "asv", "tests"])
def test_bundled_libraries_are_what_was_recorded_and_keep_their_licences(folder):
    assert vendor.check(folder) == []
    for package in vendor.read_packages(folder):
        assert package.licence in {"MIT", "MPL-2.0"}
        if package.name in NOTICES:
            (file,) = package.files
            assert NOTICES[package.name] in (folder / file.name).read_text()[:500]
        else:
            assert any("LICENSE" in file.name for file in package.files)
        assert package.integrity.startswith("sha512-")


def test_changed_missing_and_unlisted_files_are_told(tmp_path):
    folder = tmp_path / "vendor"
    shutil.copytree(STATIC, folder)
    (folder / "uplot.js").write_text("alert(1)")
    (folder / "uplot.css").unlink()
    (folder / "other.js").write_text("")
    assert vendor.check(folder) == [
        "uplot.js is not the file that was recorded",
        "uplot.css is missing",
        "other.js is not on the list",
    ]


def test_a_damaged_list_is_one_error(tmp_path):
    (tmp_path / vendor.MANIFEST).write_text("[{]")
    with pytest.raises(RecordError, match="cannot be read"):
        vendor.read_packages(tmp_path)


ADDRESS = "https://example.org/a@1.0.0.js"


def archive_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/dist/a.js")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def listed(folder: Path, integrity: str) -> None:
    file = vendor.VendoredFile(source="dist/a.js", name="a.js", sha256="", replaces=(ADDRESS,))
    package = vendor.Package(name="a", version="1.0.0", licence="MIT", integrity=integrity, files=(file,))
    (folder / vendor.MANIFEST).write_bytes(msgspec.json.encode([package]))


def test_refreshing_writes_files_and_digests(tmp_path, monkeypatch):
    archive = archive_of(b"let a;\n")
    monkeypatch.setattr(vendor, "_fetch", lambda package: archive)
    listed(tmp_path, "")
    vendor.refresh(tmp_path)
    assert (tmp_path / "a.js").read_bytes() == b"let a;\n"
    (package,) = vendor.read_packages(tmp_path)
    assert package.integrity == "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    assert package.files[0].replaces == (ADDRESS,)
    assert vendor.check(tmp_path) == []


def test_another_package_under_the_same_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vendor, "_fetch", lambda package: archive_of(b"let evil;\n"))
    listed(tmp_path, "sha512-" + base64.b64encode(b"0" * 64).decode())
    with pytest.raises(RecordError, match="not the package that was recorded"):
        vendor.refresh(tmp_path)
    assert not (tmp_path / "a.js").exists()
