"""A typed registry: names to entries, where a duplicate raises and an unknown name suggests the nearest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from assay.errors import UnknownNameError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Names (and aliases) to entries of one kind; iteration yields names in the order of registration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._aliases: dict[str, str] = {}

    def add(self, name: str, entry: T, *, aliases: tuple[str, ...] = ()) -> T:
        """Register ``entry``; raises ValueError when the name or an alias is taken."""
        for key in (name, *aliases):
            if key in self._entries or key in self._aliases:
                raise ValueError(f"{self.kind} {key!r} is registered twice")
        self._entries[name] = entry
        self._aliases.update(dict.fromkeys(aliases, name))
        return entry

    def canonical_name(self, name: str) -> str:
        """The registered name behind ``name``, which may be an alias; raises UnknownNameError."""
        if name in self._entries:
            return name
        if name in self._aliases:
            return self._aliases[name]
        raise UnknownNameError(self.kind, name, [*self._entries, *self._aliases])

    def aliases(self, name: str) -> tuple[str, ...]:
        """The aliases of a registered name."""
        return tuple(alias for alias, target in self._aliases.items() if target == name)

    def __getitem__(self, name: str) -> T:
        return self._entries[self.canonical_name(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
