"""Files and directories that are replaced all at once: a kill at any moment leaves the old one or none.

A new version is written beside the old one, in an entry named ``.NAME.<random>.partial`` that its writer
keeps locked (``flock``). The kernel drops the lock when the writer dies, however it dies, so that the next
writer can tell a dead writer's leftovers from a live one's work, and removes them; process ids could not
tell across containers or after they are reused.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from assay.errors import StorageError

__all__ = ["replace_directory", "replace_file", "storage_errors", "sync_tree"]

SUFFIX = ".partial"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_HINTS = {
    errno.ENOSPC: "Free some room on the disk, or choose another folder.",
    errno.EDQUOT: "Your disk quota is used up; free some room, or choose another folder.",
    errno.EFBIG: "The file is larger than the file system or the limit on file sizes allows.",
    errno.EROFS: "The file system is mounted read-only; choose another folder.",
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError raised inside into a StorageError that names ``path`` and says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        hint = _HINTS.get(error.errno or 0, "Check the path and its permissions, or choose another folder.")
        raise StorageError(f"Cannot write {path}: {reason}.", hint=hint) from error


@contextlib.contextmanager
def replace_directory(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``destination`` when the block ends without an error.

    ``destination`` may be absent or a directory; its parents are made. Raises StorageError, with nothing
    left behind, when anything inside cannot be written.
    """
    destination = _resolve(destination)
    with storage_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination)
        temporary, lock = _make_temporary(destination, directory=True)
        try:
            yield temporary
            sync_tree(temporary)
            _move_directory(temporary, destination)
            _sync(destination.parent)
        finally:
            # After an exchange the temporary name holds the old version.
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)


@contextlib.contextmanager
def replace_file(destination: Path) -> Iterator[Path]:
    """Yield the path of an empty file that takes the place of ``destination`` when the block ends well.

    The file must be written in place, not replaced. Raises StorageError, with nothing left behind.
    """
    destination = _resolve(destination)
    with storage_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination)
        temporary, lock = _make_temporary(destination, directory=False)
        try:
            yield temporary
            os.fsync(lock)
            temporary.replace(destination)
            _sync(destination.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(lock)


def sync_tree(folder: Path) -> None:
    """Flush every file and directory below ``folder``, and itself, to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root, name))
        _sync(Path(root))


def _resolve(destination: Path) -> Path:
    """The path behind symbolic links, so that a link keeps pointing at what is replaced."""
    return Path(os.path.realpath(destination))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush a directory; the data of files must always reach the disk.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


def _make_temporary(destination: Path, *, directory: bool) -> tuple[Path, int]:
    """A new entry beside ``destination`` and a descriptor that holds its lock."""
    while True:
        path = destination.parent / f".{destination.name}.{secrets.token_hex(8)}{SUFFIX}"
        # Between creation and lock another writer may sweep the entry away: then make a new one.
        descriptor = _create(path, directory=directory)
        if descriptor is None:
            continue
        if _try_lock(descriptor) and _same_entry(path, descriptor):
            return path, descriptor
        os.close(descriptor)


def _create(path: Path, *, directory: bool) -> int | None:
    if not directory:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    path.mkdir()
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_entry(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sweep(destination: Path) -> None:
    """Remove what dead writers of ``destination`` left beside it."""
    for path in destination.parent.glob(f".{_escape(destination.name)}.*{SUFFIX}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if _try_lock(descriptor):
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _escape(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _move_directory(source: Path, destination: Path) -> None:
    """Put ``source`` in the place of ``destination``; an old version ends up at ``source``, or is gone."""
    try:
        source.rename(destination)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if _exchange(source, destination):
        return
    # No atomic exchange here: for a moment there is neither version under the name.
    old = source.with_name(source.name.removesuffix(SUFFIX) + ".old" + SUFFIX)
    destination.rename(old)
    try:
        source.rename(destination)
    except OSError:
        old.rename(destination)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, as Linux and some of its file systems can; False where they cannot."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    result = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(second))
