"""Published JSON Schemas, generated from msgspec types."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

__all__ = ["published_schema"]


def published_schema(kind: type[Any], title: str, version: int) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``kind``, the same whatever Python generates it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "version": version,
        **_dedented(msgspec.json.schema(kind)),
    }


def _dedented(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` with descriptions as Python 3.13 keeps docstrings; older versions keep their indentation."""
    changed = {key: _dedented(value) if isinstance(value, dict) else value for key, value in schema.items()}
    if isinstance(schema.get("description"), str):
        changed["description"] = inspect.cleandoc(schema["description"])
    return changed
