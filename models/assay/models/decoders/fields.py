"""Typed access to the key-values of a configuration, with errors that name the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.errors import ModelError

__all__ = ["MOST_ELEMENTS", "MOST_LAYERS", "Fields"]

# No model comes near these; a damaged or hostile file does, and would have us build tables without end.
MOST_ELEMENTS = 1 << 26
MOST_LAYERS = 1 << 12
_SMALLEST = 1e-18
_LARGEST = 1e300


class Fields:
    """The keys and values of a ``config.json`` or of a GGUF file's header, whose kind is in ``what``.

    ``prefix`` is put before every key that is asked for. Every method raises ModelError for a key that is
    missing without a default, or whose value has another type. A value of None counts as missing.
    """

    def __init__(self, values: Mapping[str, Any], *, what: str, prefix: str = "") -> None:
        self._values = values
        self._what = what
        self._prefix = prefix

    def __contains__(self, key: str) -> bool:
        return self._values.get(self._prefix + key) is not None

    def under(self, prefix: str) -> Fields:
        """The same values with another prefix."""
        return Fields(self._values, what=self._what, prefix=prefix)

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "a whole number")
        return value

    def count(self, key: str, default: int | None = None, *, most: int = MOST_ELEMENTS) -> int:
        """A whole number from 1 to ``most``."""
        value = self.integer(key, default)
        if not 1 <= value <= most:
            raise self._wrong(key, value, f"from 1 to {most}")
        return value

    def integer_or_none(self, key: str) -> int | None:
        """A whole number, or None where the key is missing or null."""
        return self.integer(key) if key in self else None

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            raise self._wrong(key, value, "a finite number")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above 0, neither so small nor so large that its square or inverse would not be finite."""
        value = self.number(key, default)
        if not _SMALLEST <= value <= 1 / _SMALLEST:
            raise self._wrong(key, value, "a positive number")
        return value

    def positive_or_none(self, key: str) -> float | None:
        """A number above 0, or None where the key is missing or null."""
        return self.positive(key) if key in self else None

    def boolean(self, key: str, default: bool) -> bool:
        """A truth value."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def list(self, key: str) -> list[Any] | None:
        """A list of anything, None where the key is missing or null."""
        value = self._values.get(self._prefix + key)
        if value is not None and not isinstance(value, list | tuple):
            raise self._wrong(key, value, "a list")
        return None if value is None else list(value)

    def positive_numbers(self, key: str) -> tuple[float, ...]:
        """A list of positive finite numbers; empty where the key is missing or null."""
        values = self.list(key) or []
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self._wrong(key, value, "a number")
            if not _SMALLEST <= value <= 1 / _SMALLEST:
                raise self._wrong(key, value, "a positive number")
        return tuple(float(value) for value in values)

    def group(self, key: str) -> Fields | None:
        """The fields of an object inside this one, None where the key is missing or null."""
        value = self._values.get(self._prefix + key)
        if value is not None and not isinstance(value, Mapping):
            raise self._wrong(key, value, "an object")
        return None if value is None else Fields(value, what=f"{self._what} ({key})")

    def unsupported(self, key: str, meaning: str) -> ModelError:
        """The error for a value that this architecture's form here has no place for."""
        value = self._values.get(self._prefix + key)
        return ModelError(f"The {self._what} has {self._prefix}{key} = {value!r}: {meaning}.")

    def _get(self, key: str, default: Any) -> Any:
        value = self._values.get(self._prefix + key)
        if value is not None:
            return value
        if default is None:
            raise ModelError(f"The {self._what} lacks the key {self._prefix + key!r}.")
        return default

    def _wrong(self, key: str, value: Any, expected: str) -> ModelError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return ModelError(f"The {self._what} has {self._prefix}{key} = {shown}, which is not {expected}.")
