"""The folder of a device's server: for one server at a time, swept of what one that was killed left."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import UsageError
from assay.runtime.atomic import storage_errors

__all__ = ["held_folder"]


@contextmanager
def held_folder(folder: Path) -> Iterator[Path]:
    """``folder``, made where it does not exist, for this process alone until the block ends.

    Raises UsageError where another server has it, StorageError where it cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another server of a device uses the folder {folder}.",
                hint="Choose another one with --store, or another name with --name.",
            ) from None
        for left in folder.glob("session-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield folder
    finally:
        os.close(descriptor)
