"""Where an answer ends: strings that stop it, found in text that comes piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

from assay.errors import UsageError

__all__ = ["StopStrings"]


class StopStrings:
    """Text up to the first of ``stops``; what may be the beginning of one is held back until that is known.

    Raises UsageError for an empty string.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if any(not stop for stop in stops):
            raise UsageError("A stop string must not be empty.")
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def add(self, text: str) -> str:
        """What can be shown after ``text`` came; sets ``found`` when a stop string is complete."""
        if self.found is not None:
            return ""
        self._held += text
        ends = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if ends:
            end, self.found = min(ends)
            shown, self._held = self._held[:end], ""
            return shown
        keep = max((_beginning_at_end(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def end(self) -> str:
        """What is held back, when nothing more comes."""
        shown, self._held = self._held, ""
        return shown


def _beginning_at_end(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``stop``, and not all of it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
