"""How long-running work tells whoever started it which step it is in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

__all__ = ["Progress", "SilentProgress"]


class Progress(Protocol):
    """Receives the steps of a piece of work; the command line shows them, tests collect them."""

    def step(self, name: str) -> AbstractContextManager[None]:
        """Enter around one step; ``name`` is shown to people, for example ``"fold constants"``."""
        ...


class SilentProgress:
    """Shows nothing."""

    def step(self, name: str) -> AbstractContextManager[None]:
        """Enter around one step, and show nothing of it."""
        return nullcontext()
