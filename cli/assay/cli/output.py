"""How a verb speaks: results on stdout, everything else on stderr, as loud as was asked for."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from assay.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Output"]


@dataclass(kw_only=True)
class Output:
    """What the options ``--json``, ``--quiet`` and ``--verbose`` (which counts) ask for."""

    json: bool = False
    quiet: bool = False
    verbosity: int = 0

    def print_json(self, data: Any) -> None:
        """Results as JSON on stdout."""
        click.echo(json.dumps(data, indent=2))

    def print_line(self, text: str) -> None:
        """A line of results on stdout."""
        click.echo(text)

    def print(self, *renderables: RenderableType) -> None:
        """Tables and other results for people on stdout."""
        from assay.cli.console import make_console

        console = make_console(sys.stdout)
        for renderable in renderables:
            console.print(renderable)

    def note(self, text: str) -> None:
        """Something worth knowing, on stderr; not with ``--quiet`` or ``--json``."""
        if not self.quiet and not self.json:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Something that must not be missed, on stderr, however quiet."""
        if self.json:
            click.echo(json.dumps({"warning": text}), err=True)
        else:
            click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {text}", err=True)

    def progress(self, prefix: str = "", *, animated: bool = True) -> Progress:
        """What shows steps: nothing when quiet, everything with ``-v``, otherwise those over a second.

        ``prefix`` stands before the name of each step. ``animated`` is for steps that nothing is measured in:
        the animation takes time of a CPU.
        """
        if self.quiet or (self.json and not self.verbosity):
            return SilentProgress()
        from assay.cli.steps import AnimatedSteps, LineSteps

        if sys.stderr.isatty() and animated and not self.verbosity:
            from assay.cli.console import make_console

            return AnimatedSteps(make_console(sys.stderr), prefix=prefix)
        return LineSteps(prefix=prefix, everything=self.verbosity > 0)
