"""Files of JSON, one value a line, that programs add to until they are ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from assay.errors import RecordError

__all__ = ["append_line", "cut_last_line", "read_lines"]

_T = TypeVar("_T")


def append_line(path: Path, value: Any) -> None:
    """Add ``value``, of msgspec's types."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(value) + b"\n")


def cut_last_line(path: Path) -> None:
    """Take away what a program that was ended left of its last line; nothing where there is no file."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def read_lines(path: Path, kind: type[_T]) -> list[_T]:
    """All whole lines; none without a file. Raises RecordError for a line that is no ``kind``."""
    if not path.exists():
        return []
    decoder, values = msgspec.json.Decoder(kind), []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            values.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RecordError(f"{path}, line {number}: {error}.") from error
    return values
