"""JSON files of models, which are untrusted: bounded in size, without a name twice, and an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from assay.errors import ModelError

__all__ = ["MAX_JSON_BYTES", "parse_object", "read_object"]

MAX_JSON_BYTES = 1 << 24
"""The most bytes of a JSON text that are parsed; the index of a model of 91,991 tensors has 9 million."""


def read_object(path: Path) -> dict[str, Any]:
    """The object in the JSON file at ``path``; raises ModelError for a file that is missing or holds none."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(
                f"The file {str(path)!r} has over {MAX_JSON_BYTES} bytes, which no such file has."
            )
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"The file {str(path)!r} cannot be read: {error.strerror}.") from error
    return parse_object(content, repr(str(path)))


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """The JSON object in ``content``; raises ModelError, naming ``name``, where there is none.

    A number that is not finite counts as damage, and so does a name that an object has twice.
    """
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ModelError(f"{name} is not valid JSON: {reason[:200]}.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{name} is not a JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:80]!r} is there twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
