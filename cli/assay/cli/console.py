"""The rich console that tables are printed on."""

from __future__ import annotations

from typing import Any, NoReturn

from rich.console import Console

__all__ = ["make_console"]

# Of a table that goes into a file or a pipe, which has no width.
_PIPE_WIDTH = 160


class _PlainConsole(Console):
    """Leaves it to `main` to end the command when the reader goes away."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def make_console(stream: Any) -> Console:
    """A console on ``stream`` that takes text as it is: model names may look like markup."""
    width = None if stream.isatty() else _PIPE_WIDTH
    return _PlainConsole(file=stream, width=width, highlight=False, markup=False, emoji=False)
