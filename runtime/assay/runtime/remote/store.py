"""Contents by their digest on a device: what was uploaded once is not uploaded again."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from assay.errors import AssayError, StorageError
from assay.runtime.atomic import storage_errors
from assay.runtime.remote.messages import FileInfo
from assay.runtime.remote.wire import digest_of

__all__ = ["ContentStore", "UnsafeNameError"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


class UnsafeNameError(AssayError):
    """A file name that does not lie below the folder that it is for."""


class ContentStore:
    """A folder of contents, of at most ``most_bytes`` together: those used least recently go first."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        with storage_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in folder.glob("*.partial"):
                left.unlink()

    def has(self, content: FileInfo) -> bool:
        """Whether a content of that digest and size is there."""
        path = self._path(content)
        return path.is_file() and path.stat().st_size == content.bytes

    def add(self, content: FileInfo, write: Callable[[BinaryIO], None], *, ready: Callable[[], None]) -> None:
        """Keep what ``write`` writes, which must be ``content``, once that has ended without an error.

        ``ready`` is called once there is room. Raises StorageError, before that, where it does not fit.
        """
        self._make_room(content)
        ready()
        partial = self._folder / f"{content.sha256}.partial"
        try:
            with storage_errors(self._folder), partial.open("wb") as stream:
                write(stream)
            partial.chmod(0o400)
            partial.replace(self._path(content))
        finally:
            partial.unlink(missing_ok=True)

    def lay_out(self, files: Mapping[str, FileInfo], folder: Path) -> None:
        """Put the contents of ``files`` into ``folder`` under their names.

        Raises UnsafeNameError for a name outside of the folder, StorageError for a content that is missing,
        or damaged since it came.
        """
        for name, content in files.items():
            if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name or "\\" in name:
                raise UnsafeNameError(f"The name {name!r} is not a plain relative path.")
            source = self._path(content)
            if not self.has(content) or digest_of(source) != content:
                source.unlink(missing_ok=True)
                raise StorageError(f"The content of {name} is not here any more.")
            destination = folder / name
            with storage_errors(destination):
                destination.parent.mkdir(parents=True, exist_ok=True)
                # A copy: a task may write into its folder, and must not change what is kept.
                shutil.copyfile(source, destination)
            os.utime(source)

    def _path(self, content: FileInfo) -> Path:
        assert _DIGEST.fullmatch(content.sha256)
        return self._folder / content.sha256

    def _make_room(self, content: FileInfo) -> None:
        if content.bytes > self._most_bytes:
            raise StorageError(
                f"A file of {content.bytes} bytes does not fit: this device keeps {self._most_bytes}.",
                hint="Start its server with a larger --store-bytes.",
            )
        kept = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        used = sum(path.stat().st_size for path in kept)
        for path in kept:
            if used + content.bytes <= self._most_bytes:
                break
            used -= path.stat().st_size
            with contextlib.suppress(OSError):
                path.unlink()
