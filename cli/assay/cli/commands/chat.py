"""``assay chat``."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from assay.cli.generation_options import (
    generation_options,
    generation_settings,
    open_decoder,
    rates,
    rates_json,
)
from assay.cli.options import output_options
from assay.cli.output import Output
from assay.errors import InterfaceError
from assay.runtime.generate.samplers import SAMPLERS

if TYPE_CHECKING:
    from assay.runtime.generate.conversation import Conversation
    from assay.runtime.generate.generation import Generation

__all__ = ["command"]

# The most likely token each time makes small models go in circles.
_SAMPLING = {"temperature": 0.7, "top_p": 0.9}
_HELP = "/reset forgets what was said, /exit or Ctrl-D ends, Ctrl-C stops an answer."


@click.command("chat")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--system", metavar="TEXT", help="What the model is told before the chat.")
@generation_options(max_new_tokens=1024)
@output_options
@click.pass_obj
def command(output: Output, /, artifact: Path, system: str | None, **options: Any) -> None:
    """Chat with a language model, in the template that it was trained with.

    Type a message and read the answer. /reset forgets what was said, /exit or Ctrl-D ends; Ctrl-C stops an
    answer, not the chat. From a pipe, every line is a message; with --json, every answer is a line of JSON.
    Without --temperature, --top-k, --top-p or --min-p, the temperature is 0.7 and top-p 0.9; --temperature
    0 always takes the most likely token.

    \b
    Example:
      assay chat smollm2 --system "You answer in one sentence." --temperature 0.7 --top-p 0.9
      printf 'Hello\\nAnd in French?\\n' | assay chat smollm2
    """
    from assay.runtime.generate.conversation import Conversation

    settings = generation_settings(options)
    if all(settings[name] is None for name, kind in SAMPLERS.items() if kind.draws):
        settings |= _SAMPLING
    decoder, draft = open_decoder(artifact, options, output)
    chat = Conversation(decoder, system=system, **settings, **draft)
    if sys.stdin.isatty() and not output.json:
        output.note(f"{decoder.name}, context {decoder.context}. {_HELP}")
    for text in _messages(output):
        if text == "/reset":
            chat.reset()
            output.note("forgotten")
        elif text == "/help":
            output.note(_HELP)
        elif text.startswith("/"):
            output.note(f"There is no command {text.split()[0]}. {_HELP}")
        else:
            _turn(chat, text, output)


def _messages(output: Output) -> Iterator[str]:
    """Lines that are not blank, up to the end or ``/exit``."""
    interactive = sys.stdin.isatty()
    if interactive:
        with suppress(ImportError):
            import readline  # noqa: F401 (input() edits lines with it, and keeps a history)
    while True:
        try:
            line = input("> ") if interactive else sys.stdin.readline()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            click.echo()
            output.note(_HELP)
            continue
        except UnicodeDecodeError as error:
            raise InterfaceError(f"The message is not UTF-8: {error}.") from None
        if not interactive and not line:
            return
        text = line.strip()
        if text == "/exit":
            return
        if text:
            yield text


def _turn(chat: Conversation, text: str, output: Output) -> None:
    """One message and its answer, which an interrupt ends early."""
    try:
        answer = chat.ask(text)
    except InterfaceError as error:
        if not sys.stdin.isatty():
            raise
        output.warn(f"{error.message} /reset forgets what was said.")
        return
    shown = _answer(answer, quiet=output.json)
    chat.keep(shown)
    if output.json:
        body = {"text": shown, "finish_reason": _reason(answer), **rates_json(answer.statistics)}
        click.echo(json.dumps(body))
        return
    if answer.finish_reason == "length":
        output.note(f"cut after {answer.statistics.tokens} tokens: see --max-new-tokens")
    if answer.finish_reason == "context":
        output.warn("The context is full; /reset forgets what was said.")
    if output.verbosity:
        output.note(rates(answer.statistics))


def _reason(answer: Generation) -> str:
    return "interrupted" if answer.finish_reason is None else str(answer.finish_reason)


def _answer(answer: Generation, *, quiet: bool) -> str:
    """Print an answer as it comes, and give its text."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    with _interrupts() as interrupted:
        try:
            for piece in answer:
                if not quiet:
                    click.echo(piece.text, nl=False)
                    sys.stdout.flush()
                if interrupted:
                    break
        finally:
            answer.close()
    if not quiet:
        click.echo()
    return answer.text


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects interrupts instead of raising them, so that a pass through the model is never cut in two.

    The second one raises after all: the model may take long over a prompt.
    """
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
