"""Options of a build that models which generate text have, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.compile.decoders.interface import CacheDType, DecoderOptions
    from assay.models.spec import ModelSpec

__all__ = ["CACHE_DTYPES", "decoder_options", "read_decoder_options"]

F = TypeVar("F", bound=Callable[..., Any])

CACHE_DTYPES: dict[str, CacheDType] = {"f16": "float16", "f32": "float32", "int8": "int8"}


def decoder_options(function: F) -> F:
    """``--cache-dtype``, ``--max-tokens`` and ``--max-sequences``; None where they are not given."""
    for option in (
        click.option(
            "--max-sequences",
            type=click.IntRange(1, 256),
            help="Language models: the most sequences of one call.  [default: 16]",
        ),
        click.option(
            "--max-tokens",
            type=click.IntRange(1, 1 << 16),
            help="Language models: the most tokens of one call; longer prompts take several.  [default: 512]",
        ),
        click.option(
            "--cache-dtype",
            type=click.Choice(list(CACHE_DTYPES)),
            help="Language models: how keys and values are kept.  [default: f16]",
        ),
    ):
        function = option(function)
    return function


def read_decoder_options(
    specs: list[ModelSpec], cache_dtype: str | None, max_tokens: int | None, max_sequences: int | None
) -> DecoderOptions:
    """What was chosen. Raises UsageError where something was, and a model generates no text."""
    from assay.compile.decoders.interface import DecoderOptions

    given = {
        "cache_dtype": None if cache_dtype is None else CACHE_DTYPES[cache_dtype],
        "max_tokens": max_tokens,
        "max_sequences": max_sequences,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    others = [spec.name for spec in specs if spec.decoder is None]
    if chosen and others:
        option = next(iter(chosen)).replace("_", "-")
        raise UsageError(f"--{option} is for language models; {others[0]} generates no text.")
    return DecoderOptions(**chosen)  # type: ignore[arg-type]
