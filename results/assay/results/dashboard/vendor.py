"""Files of npm packages that are kept here, as a folder's ``vendored.json`` names them: fetched or checked.

``python -m assay.results.dashboard.vendor FOLDER`` fetches each package with ``npm pack``, compares it with
the recorded integrity, and writes its files and their digests. For another version, change ``version``
and empty ``integrity`` first. With ``--check`` nothing is fetched: the files are compared with the digests.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import msgspec

from assay.errors import RecordError

__all__ = ["MANIFEST", "Package", "VendoredFile", "check", "read_packages", "refresh"]

MANIFEST = "vendored.json"


class VendoredFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One file of a package: its path there, its name here, the SHA-256 of its bytes.

    ``replaces``: the addresses from which pages that others made load this library.
    """

    source: str
    name: str
    sha256: str
    replaces: tuple[str, ...] = ()


class Package(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version of an npm package. ``integrity`` is npm's own, of the whole archive: ``sha512-<base64>``."""

    name: str
    version: str
    licence: str
    integrity: str
    files: tuple[VendoredFile, ...]


def read_packages(folder: Path) -> list[Package]:
    """The packages that ``folder`` keeps files of. Raises RecordError for a damaged list."""
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Package])
    except (OSError, msgspec.MsgspecError) as error:
        raise RecordError(f"The list of vendored files {path} cannot be read: {error}.") from error


def check(folder: Path) -> list[str]:
    """What is wrong: files that are missing, changed, or not on the list."""
    problems = []
    expected = {file.name: file.sha256 for package in read_packages(folder) for file in package.files}
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif _sha256(path.read_bytes()) != digest:
            problems.append(f"{name} is not the file that was recorded")
    others = {path.name for path in folder.iterdir()} - {*expected, MANIFEST}
    return problems + [f"{name} is not on the list" for name in sorted(others)]


def refresh(folder: Path) -> None:
    """Fetch every package anew and write its files and the list with their digests.

    Raises RecordError where a package is not what was recorded for its version.
    """
    packages = [_refresh(package, folder) for package in read_packages(folder)]
    content = msgspec.json.format(msgspec.json.encode(packages), indent=2) + b"\n"
    (folder / MANIFEST).write_bytes(content)


def _refresh(package: Package, folder: Path) -> Package:
    content = _fetch(package)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if package.integrity not in ("", integrity):
        raise RecordError(f"{package.name} {package.version} is not the package that was recorded.")
    files = []
    with tempfile.TemporaryFile() as stream:
        stream.write(content)
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            for file in package.files:
                member = archive.extractfile(f"package/{file.source}")
                if member is None:
                    raise RecordError(f"{package.name} {package.version} has no {file.source}.")
                data = member.read()
                (folder / file.name).write_bytes(data)
                files.append(msgspec.structs.replace(file, sha256=_sha256(data)))
    return msgspec.structs.replace(package, integrity=integrity, files=tuple(files))


def _fetch(package: Package) -> bytes:
    """The archive of a package, through npm."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", scratch, f"{package.name}@{package.version}"],
            check=True,
            cwd=scratch,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(scratch).glob("*.tgz")
        return archive.read_bytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    """Refresh the folder, or check it."""
    parser = argparse.ArgumentParser(prog="python -m assay.results.dashboard.vendor", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "static" / "vendor")
    parser.add_argument("--check", action="store_true", help="fetch nothing, compare digests")
    options = parser.parse_args()
    if not options.check:
        refresh(options.folder)
    problems = check(options.folder)
    print("\n".join(problems) or "every file is as recorded")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
