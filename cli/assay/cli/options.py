"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from assay.cli.output import Output
from assay.errors import UsageError

__all__ = [
    "build_options",
    "cache_option",
    "device_option",
    "level_option",
    "output_options",
    "parse_sizes",
    "quantization_options",
    "size_option",
    "target_options",
    "threads_type",
]

F = TypeVar("F", bound=Callable[..., Any])

threads_type = click.IntRange(min=1)


def output_options(function: F) -> F:
    """``--json``, ``--quiet`` and ``--verbose``; they end up in the ``Output`` of ``click.pass_obj``."""

    def keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
        def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
            output = ctx.find_object(Output)
            if output is not None and value:
                setattr(output, name, value)

        return callback

    settings: dict[str, Any] = {"expose_value": False, "is_eager": True}
    for option in (
        click.option(
            "-v",
            "--verbose",
            count=True,
            callback=keep("verbosity"),
            help="Show every step with its time; -vv adds a traceback to errors.",
            **settings,
        ),
        click.option(
            "-q", "--quiet", is_flag=True, callback=keep("quiet"), help="Results and errors only.", **settings
        ),
        click.option(
            "--json", is_flag=True, callback=keep("json"), help="Results and errors as JSON.", **settings
        ),
    ):
        function = option(function)
    return function


def build_options(function: F) -> F:
    """What a build depends on: ``--target``, ``--scheme`` and ``--profile``."""
    function = click.option(
        "--profile", default="release", show_default=True, help="How hard the build works."
    )(function)
    return target_options(function)


def target_options(function: F) -> F:
    """``--target`` and ``--scheme``."""
    for option in (
        click.option(
            "--scheme",
            help="How weights are stored and multiplied: f32, f16, bf16, int8, int4, with options such as "
            "int4-g64-sym, or source, as the model has them.  [default: f32; source for a model whose "
            "weights are quantized]",
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            default=("native",),
            show_default=True,
            metavar="NAME[,NAME...]",
            help="What to compile for; `assay targets` lists them. Several make one artifact of several "
            "levels, from which the runtime takes the best that the CPU has; may be repeated.",
        ),
    ):
        function = option(function)
    return function


def quantization_options(function: F) -> F:
    """``--override`` and ``--calibration``: how single weights are stored, and what ranges come from."""
    for option in (
        click.option(
            "--calibration",
            type=click.Path(path_type=Path),
            help="For schemes that calibrate: folder of inputs, as `assay run --record` writes.  "
            "[default: a text that comes with Assay, or the model's representative inputs]",
        ),
        click.option(
            "--override",
            "overrides",
            multiple=True,
            metavar="PATTERN=SCHEME",
            help="A scheme for the weights whose name, or the name of a node that reads them, matches a glob "
            "pattern, such as 'lm_head*=int8'; the first that matches holds; may be repeated.",
        ),
    ):
        function = option(function)
    return function


level_option = click.option(
    "--level",
    metavar="TARGET",
    help="Of an artifact of several levels, the one to run.  "
    "[default: that of ASSAY_LEVEL, or the best that this CPU has]",
)

device_option = click.option(
    "--device",
    metavar="DEVICE",
    help="Where to run: auto, cpu, an API or API:INDEX as `assay devices` lists them.  "
    "[default: auto, the best one that runs the artifact]",
)

cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the build cache.  [default: the user's cache folder]",
)

size_option = click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="DIM=N",
    help="Size of a symbolic dimension, such as sequence=64; may be repeated.",
)


def parse_sizes(arguments: Sequence[str]) -> dict[str, int]:
    """Sizes by dimension from ``DIM=N`` arguments. Raises UsageError."""
    sizes = {}
    for argument in arguments:
        name, separator, number = argument.partition("=")
        if not (name and separator and number.isdecimal()):
            raise UsageError(f"--size takes DIM=N, such as sequence=64, not {argument!r}.")
        sizes[name] = int(number)
    return sizes
