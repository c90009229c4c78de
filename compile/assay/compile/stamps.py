"""Which files are as they were when their content was checked, without reading them again.

As the index of git does it (git, Documentation/technical/racy-git.txt): a file whose size, times, inode and
device are those of the check has the content of the check. Among the times is that of the last change of
status, which no program sets: a file that was changed and then given its old time is noticed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

__all__ = ["SUFFIX", "Stamp", "keep_stamps", "stamps_of", "unchanged_note"]

SUFFIX = ".stamps"

# Nanoseconds; longer than the tick of the clock by which Linux stamps files, which is at most 10 ms.
_CLOCK_TICK = 20_000_000
_SECOND = 1_000_000_000


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What the file system says of one file: times in nanoseconds."""

    size: int
    modified: int
    changed: int
    inode: int
    device: int


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The stamps of files by their names below a path, and what whoever checked them had to say."""

    files: dict[str, Stamp]
    note: str


def stamps_of(path: Path, beside: Iterable[str] = ()) -> dict[str, Stamp]:
    """Stamps of ``path``, by name: all files below a folder; or a file, and those named ``beside`` it.

    Raises OSError where one is not there.
    """
    if not path.is_dir():
        return {name: _stamp(path.parent / (name or path.name)) for name in ("", *beside)}
    files = [Path(folder, name) for folder, _, names in os.walk(path, onerror=_raise) for name in names]
    return {str(file.relative_to(path)): _stamp(file) for file in files}


def keep_stamps(record: Path, path: Path, note: str = "", *, files: dict[str, Stamp] | None = None) -> None:
    """Write into ``record`` that ``path`` was written or checked just now, or when ``files`` were its stamps.

    Nothing is kept where times tell too little: on a file system whose times are whole seconds, or where a
    file is of the future. Raises OSError.
    """
    if files is None:
        files = stamps_of(path)
    record.unlink(missing_ok=True)
    since = time.time_ns() - max((each.changed for each in files.values()), default=0)
    if since < 0 or any(each.changed % _SECOND == 0 for each in files.values()):
        return
    # A change within the same tick of the clock would leave the same stamp.
    time.sleep(max(0, _CLOCK_TICK - since) / _SECOND)
    if stamps_of(path, files.keys() - {""}) == files:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_bytes(msgspec.json.encode(_Kept(files=files, note=note)))


def unchanged_note(record: Path, path: Path) -> str | None:
    """The note that was kept of ``path``; None where it is not as ``record`` has it."""
    try:
        kept = msgspec.json.decode(record.read_bytes(), type=_Kept)
        return kept.note if stamps_of(path, kept.files.keys() - {""}) == kept.files else None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _stamp(path: Path) -> Stamp:
    status = path.lstat()
    return Stamp(
        size=status.st_size,
        modified=status.st_mtime_ns,
        changed=status.st_ctime_ns,
        inode=status.st_ino,
        device=status.st_dev,
    )


def _raise(error: OSError) -> None:
    raise error
