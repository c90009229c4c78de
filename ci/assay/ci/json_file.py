"""What a command of this package found, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from assay.runtime.atomic import replace_file

__all__ = ["write_json"]


def write_json(path: Path, value: Any) -> None:
    """Write ``value``, of msgspec's types, to ``path``, whole or not at all. Raises StorageError."""
    with replace_file(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
