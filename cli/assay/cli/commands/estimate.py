"""``assay estimate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.artifacts import is_artifact
from assay.cli.options import level_option, output_options
from assay.cli.output import Output
from assay.errors import CapacityError, UsageError
from assay.runtime.generate.estimate import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from assay.models.decoders.config import DecoderConfig
    from assay.runtime.generate.estimate import MemoryEstimate

__all__ = ["command"]


@click.command("estimate")
@click.argument("model", metavar="ARTIFACT|MODEL")
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help="Tokens of one sequence.  [default: what the model has, at most 4096]",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences at once.")
@click.option(
    "--cache-dtype",
    type=click.Choice(["f16", "f32", "int8"]),
    help="How keys and values are stored.  [default: that of the artifact, or f16]",
)
@click.option("--scheme", help="Of a model that is not built: this one only.  [default: all]")
@level_option
@output_options
@click.pass_obj
def command(
    output: Output,
    /,
    model: str,
    context: int | None,
    batch: int,
    cache_dtype: str | None,
    scheme: str | None,
    level: str | None,
) -> None:
    """Say how much memory a language model takes, and whether it fits.

    For an artifact, its weights, its cache at its fullest, its workspace as planned, and the runtime. For a
    model that is not built, a named one, a GGUF file or a folder, the same for every scheme, computed from
    its shapes; the workspace is then as large as the largest values of one call. Fails where nothing of it
    fits.

    \b
    Example:
      assay estimate smollm2
      assay estimate llama-2-7b --context 4096 --batch 4 --cache-dtype int8
    """
    from assay.runtime.free_memory import free_memory

    free = free_memory()
    if is_artifact(model):
        _artifact(output, Path(model), context, batch, cache_dtype, level, free)
    else:
        _model(output, model, context, batch, cache_dtype, scheme, free)


def _artifact(
    output: Output,
    path: Path,
    context: int | None,
    batch: int,
    cache_dtype: str | None,
    level: str | None,
    free: int | None,
) -> None:
    import msgspec

    from assay.cli.decoder_options import CACHE_DTYPES
    from assay.runtime.artifact import open_artifact
    from assay.runtime.generate.estimate import check_fits, choose_context, estimate_memory
    from assay.runtime.generate.loading import decoder_info
    from assay.runtime.levels import choose_level

    manifest = open_artifact(path, verify=False).manifest
    info = decoder_info(manifest, path)
    if cache_dtype is not None:
        info = msgspec.structs.replace(info, cache_dtype=CACHE_DTYPES[cache_dtype])
        manifest = msgspec.structs.replace(manifest, decoder=info)
    chosen = choose_level(manifest, level)
    tokens = choose_context(info, context)
    estimate = estimate_memory(manifest, chosen, context=tokens, sequences=batch)
    _show(output, manifest.model.name, {manifest.scheme: estimate}, tokens, batch, info.cache_dtype, free)
    check_fits(manifest, chosen, context=tokens, sequences=batch, available=free)


def _show(
    output: Output,
    name: str,
    estimates: dict[str, MemoryEstimate],
    context: int,
    batch: int,
    cache_dtype: str,
    free: int | None,
) -> None:
    if output.json:
        output.print_json(
            {
                "model": name,
                "context": context,
                "batch": batch,
                "cache_dtype": cache_dtype,
                "free_bytes": free,
                "schemes": {scheme: _json(estimate, free) for scheme, estimate in estimates.items()},
            }
        )
        return
    from rich.table import Table

    table = Table(
        "scheme", title=f"{name}: {batch} x {context} tokens, cache in {cache_dtype}", title_justify="left"
    )
    for heading in ("weights", "cache", "workspace", "runtime", "together"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for scheme, each in estimates.items():
        figures = (each.weights, each.cache, each.workspace, each.runtime, each.total)
        fits = "" if free is None else "fits" if each.total <= free else "does not fit"
        table.add_row(scheme, *(f"{figure / 1e6:,.1f} MB" for figure in figures), fits)
    output.print(table)
    if free is not None:
        output.note(f"free memory: {free / 1e6:,.0f} MB")


def _json(estimate: MemoryEstimate, free: int | None) -> dict[str, Any]:
    return {
        "weights_bytes": estimate.weights,
        "cache_bytes": estimate.cache,
        "workspace_bytes": estimate.workspace,
        "runtime_bytes": estimate.runtime,
        "total_bytes": estimate.total,
        "fits": None if free is None else estimate.total <= free,
    }


def _model(
    output: Output,
    name: str,
    context: int | None,
    batch: int,
    cache_dtype: str | None,
    scheme: str | None,
    free: int | None,
) -> None:
    """Every scheme, or one, for a model that is not built. Fails where none fits."""
    from assay.cli.decoder_options import CACHE_DTYPES
    from assay.compile.decoders.estimate import estimate_unbuilt
    from assay.compile.decoders.interface import DecoderOptions
    from assay.compile.schemes import find_scheme, schemes

    config = _config(name)
    options = DecoderOptions(cache_dtype=CACHE_DTYPES[cache_dtype or "f16"])
    most = config.context_length
    if context is not None and context > most:
        raise UsageError(f"The context must be from 1 to the model's {most} tokens, not {context}.")
    tokens = min(most, DEFAULT_CONTEXT) if context is None else context
    if scheme:
        chosen = [find_scheme(scheme)]
    else:
        # Those that quantize activations ahead of time are not for decoders.
        chosen = [each for each in schemes().values() if each.changes_weights and not each.needs_samples]
    estimates = {
        each.name: estimate_unbuilt(config, each, options, context=tokens, sequences=batch) for each in chosen
    }
    _show(output, name, estimates, tokens, batch, options.cache_dtype, free)
    least = min(estimates.values(), key=lambda estimate: estimate.total)
    if free is not None and least.total > free:
        raise CapacityError(
            f"{name} does not fit into memory in any of these schemes: at least {least.total / 1e6:,.0f} MB "
            f"are needed, and {free / 1e6:,.0f} MB are free.",
            hint="Take a shorter --context, a smaller --batch, --cache-dtype int8, or a smaller model.",
        )


def _config(name: str) -> DecoderConfig:
    """The configuration of a known shape, or of a model of the registry or on disk."""
    from assay.models.decoders.shapes import KNOWN_SHAPES
    from assay.models.registry import find_model

    if name in KNOWN_SHAPES:
        return KNOWN_SHAPES[name]
    spec = find_model(name)
    if spec.decoder is None:
        raise UsageError(f"{name} is not a decoder: it generates no text.", hint="assay models lists those.")
    config: DecoderConfig | Callable[[], DecoderConfig] | None = getattr(spec.provider, "config", None)
    if config is None:
        raise UsageError(
            f"The shapes of {name} are not known before it is built.",
            hint=f"Build it, and estimate the artifact: assay build {name} -o ARTIFACT",
        )
    return config() if callable(config) else config
