"""Libraries of one-file artifacts, extracted to a private cache folder: dlopen needs a file of its own."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from assay.errors import ArtifactError, StorageError
from assay.runtime.atomic import replace_file
from assay.runtime.packing import Region

__all__ = ["cache_folder", "extracted"]


def extracted(region: Region, sha256: str, name: str) -> Path:
    """The path of a file with the content of ``region``, whose digest is ``sha256`` (hexadecimal).

    A copy from an earlier run is used only after its digest was checked. Raises ArtifactError when the
    content has another digest, and StorageError when no folder can be written.
    """
    with region.path.open("rb") as stream:
        stream.seek(region.offset)
        content = stream.read(region.size)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactError(f"{name} in {region.path.name} is damaged: its digest differs.")
    last: StorageError | None = None
    for folder in (cache_folder(), _temporary_folder()):
        if folder is None:
            continue
        path = folder / sha256 / name
        try:
            if not _holds(path, sha256):
                with replace_file(path) as temporary:
                    temporary.write_bytes(content)
            return path
        except StorageError as error:
            last = error
    raise last or StorageError("There is no folder to extract libraries to.")


def cache_folder() -> Path | None:
    """The folder for extracted libraries, made when absent; None when nobody else must not write there.

    It is ``$XDG_CACHE_HOME/assay/libraries`` or ``~/.cache/assay/libraries``, and belongs to this user alone.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(base) if base else Path.home() / ".cache"
        folder = root / "assay" / "libraries"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, RuntimeError):
        return None
    private = status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if private else None


@functools.cache
def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="assay-libraries-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _holds(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False
