"""``assay generate``."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
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
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.runtime.generate.decoder import Decoder, Prompt
    from assay.runtime.generate.generation import Generation

__all__ = ["command"]


@click.command("generate")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("-p", "--prompt", metavar="TEXT", help="The text to continue.")
@click.option(
    "--prompt-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Take the prompt from this file, or from stdin where it is `-`.",
)
@click.option(
    "--prompt-ids", metavar="ID,ID...", help="Take these tokens as the prompt, and print tokens: no text."
)
@click.option("--chat", is_flag=True, help="Give the prompt as a message of a chat, in the model's template.")
@click.option("--system", metavar="TEXT", help="With --chat: what the model is told before.")
@click.option("--ignore-eos", is_flag=True, help="Go on behind the token that ends a text.")
@generation_options(max_new_tokens=256)
@output_options
@click.pass_obj
def command(
    output: Output,
    /,
    artifact: Path,
    prompt: str | None,
    prompt_file: Path | None,
    prompt_ids: str | None,
    chat: bool,
    system: str | None,
    ignore_eos: bool,
    **options: Any,
) -> None:
    """Continue a text with a language model, and print what comes as it comes.

    The prompt comes from --prompt, --prompt-file or stdin. Without --temperature, --top-k, --top-p or
    --min-p, the most likely token is taken each time. --ngram and --draft change how fast the text comes,
    and not which texts are how likely. Needs the extra `generate`, unless tokens go in and out.

    \b
    Example:
      assay generate smollm2 --prompt "The sea is" --max-new-tokens 64
      assay generate smollm2 --chat --prompt "Why is the sea salt?" --temperature 0.7 --top-p 0.9
      cat article.txt | assay generate smollm2 --ngram --json
    """
    if system is not None and not chat:
        raise UsageError("--system is for --chat.")
    text = _prompt(prompt, prompt_file, prompt_ids)
    settings = generation_settings(options)
    start = perf_counter()
    decoder, draft = open_decoder(artifact, options, output, text=prompt_ids is None)
    load_seconds = perf_counter() - start
    start = perf_counter()
    if chat:
        text = _message(decoder, text, system)
    generation = decoder.generate(text, ignore_eos=ignore_eos, **settings, **draft)
    generation.statistics.tokenize_seconds = perf_counter() - start
    if output.json:
        _print_json(output, decoder, generation, settings["seed"], load_seconds)
        return
    stream(generation, ids=prompt_ids is not None)
    output.note(f"\n{rates(generation.statistics)}; loaded in {load_seconds:.3g} s")


def stream(generation: Generation, *, ids: bool = False) -> None:
    """Print pieces as they come, tokens with ``ids``, and end the line also when interrupted."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every character
    try:
        for piece in generation:
            click.echo(f"{piece.token} " if ids else piece.text, nl=False)
            sys.stdout.flush()
    finally:
        generation.close()
        click.echo()


def _prompt(text: str | None, file: Path | None, ids: str | None) -> Prompt:
    """The prompt from wherever it was given. Raises UsageError where it was not, or twice."""
    given = [each for each in (text, file, ids) if each is not None]
    if len(given) > 1:
        raise UsageError("--prompt, --prompt-file and --prompt-ids exclude each other.")
    if text is not None:
        return text
    if ids is not None:
        return _ids(ids)
    try:
        if file is not None and str(file) != "-":
            return file.read_text("utf-8")
        if file is None and _is_terminal():
            raise UsageError(
                "There is no prompt.",
                hint="Give it with --prompt TEXT, --prompt-file FILE or through a pipe.",
            )
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"The prompt is not UTF-8: {error}.") from None


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _ids(text: str) -> list[int]:
    try:
        return [int(each) for each in text.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--prompt-ids takes numbers, such as 1,2,3, not {text!r}.") from None


def _message(decoder: Decoder, text: Prompt, system: str | None) -> list[int]:
    """The tokens of a chat whose one message is ``text``."""
    from assay.runtime.generate.chat_template import Message, Role
    from assay.runtime.generate.chat_tokens import chat_tokens

    if not isinstance(text, str):
        raise UsageError("--chat takes a text, not tokens.")
    if not text.strip():
        from assay.errors import InterfaceError

        raise InterfaceError("The prompt is empty.", hint="Give a message to answer.")
    messages = [Message(role=Role.USER, content=text)]
    if system is not None:
        messages.insert(0, Message(role=Role.SYSTEM, content=system))
    return chat_tokens(decoder.tokenizer, decoder.chat_template, messages)


def _print_json(
    output: Output, decoder: Decoder, generation: Generation, seed: int, load_seconds: float
) -> None:
    from assay.runtime.free_memory import peak_memory

    result = generation.result()
    output.print_json(
        {
            "model": decoder.name,
            "level": decoder.level,
            "device": f"{decoder.device.api}:{decoder.device.index}" if decoder.device else "cpu",
            "threads": decoder.threads,
            "context": decoder.context,
            "seed": seed,
            "text": result.text,
            "tokens": list(result.tokens),
            "finish_reason": str(result.finish_reason),
            "load_seconds": load_seconds,
            "peak_memory_bytes": peak_memory(),
            **rates_json(result.statistics),
        }
    )
