"""Options of the verbs that generate text, and what they make of a decoder."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from assay.cli.options import device_option, level_option, threads_type
from assay.cli.output import Output
from assay.runtime.generate.samplers import SAMPLERS

if TYPE_CHECKING:
    from assay.runtime.generate.decoder import Decoder
    from assay.runtime.generate.statistics import Statistics

__all__ = ["generation_options", "generation_settings", "open_decoder", "rates", "rates_json", "seed_option"]

F = TypeVar("F", bound=Callable[..., Any])


def generation_options(*, max_new_tokens: int) -> Callable[[F], F]:
    """How a decoder is loaded, what is drawn from it, where it stops, and who proposes tokens.

    They arrive as ``threads``, ``context``, ``level``, ``device``, ``draft``, and for ``generation_settings``
    the others. ``max_new_tokens`` is the default of that option.
    """
    options = [
        click.option(
            "-n",
            "--max-new-tokens",
            type=click.IntRange(min=1),
            default=max_new_tokens,
            show_default=True,
            help="Tokens of an answer, at most.",
        ),
        click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; may be repeated."),
        *(_sampler_option(name) for name in SAMPLERS),
        seed_option,
        click.option(
            "--ngram",
            is_flag=True,
            help="Propose what followed the last tokens earlier in the text, and check it in one pass.",
        ),
        click.option(
            "--draft",
            type=click.Path(path_type=Path),
            metavar="ARTIFACT",
            help="A smaller model with the same tokens, which proposes tokens.",
        ),
        click.option(
            "--draft-tokens",
            type=click.IntRange(min=1),
            default=4,
            show_default=True,
            help="Tokens that are proposed at a time.",
        ),
        click.option(
            "--context",
            type=click.IntRange(min=1),
            help="Tokens of prompt and answer together that there is memory for.  "
            "[default: what the model has, at most 4096]",
        ),
        level_option,
        device_option,
        click.option("--threads", type=threads_type, help="Threads.  [default: the physical cores]"),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


seed_option = click.option(
    "--seed", type=click.IntRange(min=0), help="Of random draws.  [default: another one every time]"
)


def _sampler_option(name: str) -> Callable[[F], F]:
    kind = SAMPLERS[name]
    return click.option(
        "--" + name.replace("_", "-"),
        name,
        type=int if kind.integer else float,
        metavar="NUMBER",
        help=kind.help,
    )


def generation_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``Decoder.generate`` from ``generation_options``; draws a seed if none is given."""
    names = ("max_new_tokens", "stop", "ngram", "draft_tokens", *SAMPLERS)
    settings = {name: options[name] for name in names}
    settings["seed"] = secrets.randbits(32) if options["seed"] is None else options["seed"]
    return settings


def open_decoder(
    artifact: Path, options: dict[str, Any], output: Output, *, text: bool = True
) -> tuple[Decoder, dict[str, Any]]:
    """The decoder, and the draft as an argument of ``Decoder.generate`` where one is asked for.

    Without ``text``, it needs no tokenizer.
    """
    from assay.runtime import load_decoder

    loading = {name: options[name] for name in ("threads", "context")}
    decoder = load_decoder(artifact, level=options["level"], device=options["device"], **loading)
    if not decoder.executed:
        output.warn(f"The artifact was compiled, and its code for {decoder.level} never executed before.")
    if text:
        _ = decoder.tokenizer  # read now: it is part of loading
    if options["draft"] is None:
        return decoder, {}
    # The draft follows the same text, so it needs as much context as it can have of that.
    draft = load_decoder(options["draft"], threads=options["threads"], context=None)
    return decoder, {"draft": draft}


def rates(statistics: Statistics) -> str:
    """What a text took, in one line for people."""
    prompt = f"{statistics.prompt_tokens} tokens of prompt"
    if statistics.reused_tokens:
        prompt += f" ({statistics.reused_tokens} from the cache)"
    parts = [f"{prompt}, first token after {statistics.first_token_seconds:.3g} s"]
    parts.append(f"{statistics.tokens} new" + _per_second(statistics.decode_rate))
    if statistics.acceptance_rate is not None:
        parts.append(f"{statistics.acceptance_rate:.0%} of {statistics.proposed_tokens} proposals taken")
    return "; ".join(parts)


def _per_second(rate: float | None) -> str:
    return "" if rate is None else f", {rate:.3g} tokens/s"


def rates_json(statistics: Statistics) -> dict[str, Any]:
    """What a text took, with seconds and tokens/s."""
    return {
        "prompt_tokens": statistics.prompt_tokens,
        "reused_tokens": statistics.reused_tokens,
        "new_tokens": statistics.tokens,
        "ttft_seconds": statistics.first_token_seconds,
        "tokenize_seconds": statistics.tokenize_seconds,
        "prefill_seconds": statistics.prefill_seconds,
        "decode_seconds": statistics.decode_seconds,
        "prefill_tokens_per_second": statistics.prefill_rate,
        "decode_tokens_per_second": statistics.decode_rate,
        "passes": statistics.passes,
        "proposed_tokens": statistics.proposed_tokens,
        "accepted_tokens": statistics.accepted_tokens,
        "acceptance_rate": statistics.acceptance_rate,
    }
