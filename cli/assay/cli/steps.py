"""Progress of long work on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

__all__ = ["AnimatedSteps", "LineSteps"]

_WORTH_TELLING_SECONDS = 1.0


class AnimatedSteps:
    """The steps under way, each with a spinner and the time that it has taken; gone when they are over."""

    def __init__(self, console: Console, *, prefix: str = "") -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._prefix = prefix
        self._running: list[TaskID] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show the step ``name`` until the block ends."""
        if not self._running:
            self._progress.start()
        task = self._progress.add_task(self._prefix + name, total=None)
        self._running.append(task)
        try:
            yield
        finally:
            self._running.remove(task)
            self._progress.remove_task(task)
            if not self._running:
                self._progress.stop()


class LineSteps:
    """A line for each step that is over, with its time; on a terminal also one for the step under way.

    It runs no thread of its own, so that it may be used while something is measured.
    """

    def __init__(self, *, prefix: str = "", everything: bool) -> None:
        self._prefix = prefix
        self._everything = everything
        self._terminal = sys.stderr.isatty()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show the step ``name`` when the block ends, if it took long enough or all are wanted."""
        name = self._prefix + name
        start = perf_counter()
        if self._terminal:
            click.echo(f"\r\x1b[K  {name} ...", err=True, nl=False)
        try:
            yield
        finally:
            if self._terminal:
                click.echo("\r\x1b[K", err=True, nl=False)
        seconds = perf_counter() - start
        if self._everything or (seconds >= _WORTH_TELLING_SECONDS and not self._terminal):
            click.echo(f"  {name}: {seconds:.1f} s", err=True)
