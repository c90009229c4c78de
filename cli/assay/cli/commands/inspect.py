"""``assay inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from assay.cli.options import output_options
from assay.cli.output import Output

if TYPE_CHECKING:
    from assay.runtime.manifest import DecoderInfo, Level, Manifest

__all__ = ["command"]


@click.command("inspect")
@click.argument("artifact", type=click.Path(path_type=Path))
@output_options
@click.pass_obj
def command(output: Output, artifact: Path) -> None:
    """Show what is in an artifact.

    Every file's digest is checked first. Shown are the model, the levels and which of them this machine
    takes, the interface, what kernels for GPUs take, and the errors that were measured against ONNX Runtime
    when it was built; -v adds files and tools.

    \b
    Example:
      assay inspect artifacts/silero-vad-x86-64-v3-f32-release
    """
    from assay.cli.device_code import device_code_table, device_codes
    from assay.runtime.artifact import open_artifact
    from assay.runtime.manifest import encode_manifest

    opened = open_artifact(artifact)
    manifest, codes = opened.manifest, device_codes(opened)
    for level in manifest.levels:
        if level.executed == "never":
            note = level.verification.note or ""
            warning = f"COMPILED, NOT EXECUTED: no machine has run this code for {level.target.name}. {note}"
            output.warn(warning.rstrip())
    if output.json:
        described = {name: to_builtins(code) for name, code in codes.items()}
        row = {"path": str(artifact), "manifest": json.loads(encode_manifest(manifest))}
        output.print_json({**row, "device_code": described} if codes else row)
        return
    output.print(_overview(artifact, manifest), _levels(manifest), _interface(manifest))
    if manifest.decoder is not None:
        output.print(_decoder(manifest.decoder))
    output.print(*(device_code_table(name, code) for name, code in codes.items()))
    output.print(*(_errors(level) for level in manifest.levels))
    if output.verbosity:
        output.print(_files(manifest))


def _overview(artifact: Path, manifest: Manifest) -> Any:
    from rich.table import Table

    from assay.cli.workspace import workspace_text

    model = manifest.model
    unscheduled = sorted({name for level in manifest.levels for name in level.unscheduled_kernels})
    size = sum(file.bytes for file in manifest.files.values())
    table = Table(show_header=False, title=str(artifact), title_justify="left")
    for key, value in {
        "model": f"{model.name}: {model.description}",
        "weights": f"{model.weights}, {sum(weight.bytes for weight in manifest.weights) / 1e6:.1f} MB",
        "licence": model.licence,
        "scheme, profile": f"{manifest.scheme}, {manifest.profile}",
        "size": f"{size / 1e6:.1f} MB in {len(manifest.files)} files",
        "memory for intermediate results": workspace_text(manifest),
        "kernels without a schedule": ", ".join(unscheduled) or "none",
        "built with": f"assay {manifest.assay_version}",
        "canonical ONNX": model.canonical_digest,
    }.items():
        table.add_row(key, value)
    return table


def _levels(manifest: Manifest) -> Any:
    """One row for each level: what it needs, whether it ever ran, and whether this machine would take it."""
    from rich.table import Table

    from assay.errors import AssayError
    from assay.runtime.cpu import missing_features
    from assay.runtime.levels import choose_level, device_of, fits

    try:
        chosen = choose_level(manifest).target.name
    except AssayError:
        chosen = None
    words = {
        "native": "executed and compared",
        "emulated": "executed under an emulator and compared",
        "never": "COMPILED, NOT EXECUTED",
    }
    table = Table("target", "features", "executed", "here", title="Levels", title_justify="left")
    for level in manifest.levels:
        target = level.target
        device = device_of(level, manifest)
        if device is None:
            missing = ", ".join(missing_features(target.features)) or target.triple
            here = "runs" if fits(level) else f"this machine lacks {missing}"
        else:
            here = device if isinstance(device, str) else f"runs on {device.name}"
        table.add_row(
            f"{target.name} ({target.triple}, {target.cpu}){_own_sizes(level)}",
            ", ".join(target.features) or "none beyond the base",
            words[level.executed],
            "taken" if target.name == chosen else here,
        )
    return table


def _own_sizes(level: Level) -> str:
    """The sizes that a level has code of their own for."""
    sizes = [
        ", ".join(f"{name}={size}" for name, size in each.sizes.items()) for each in level.specializations
    ]
    return f"; code for {'; '.join(sizes)}" if sizes else ""


def _interface(manifest: Manifest) -> Any:
    from rich.table import Table

    table = Table("", "name", "dtype", "shape", title="Interface", title_justify="left")
    for item in manifest.inputs:
        dims = [
            str(dim) if isinstance(dim, int) else f"{dim.name} ({dim.minimum} to {dim.maximum})"
            for dim in item.shape
        ]
        table.add_row("input", item.name, item.dtype, ", ".join(dims))
    for result in manifest.outputs:
        table.add_row("output", result.name, result.dtype, ", ".join(str(dim) for dim in result.shape))
    return table


def _decoder(info: DecoderInfo) -> Any:
    """What a language model is, what its cache takes, and the limits of a call."""
    from rich.table import Table

    from assay.runtime.generate.cache import page_bytes

    heads = f"{info.heads}, {info.kv_heads} of keys and values, {info.head_dim} elements each"
    page = f"{page_bytes(info):,} bytes for {info.page_tokens} tokens"
    limits = f"{info.max_tokens} tokens, {info.max_sequences} sequences, logits of {info.max_rows} tokens"
    begin, end = (", ".join(map(str, ids)) or "none" for ids in (info.bos_ids, info.eos_ids))
    table = Table(show_header=False, title="Language model", title_justify="left")
    for key, value in {
        "architecture": f"{info.architecture}, {info.layers} layers",
        "heads": heads,
        "vocabulary": f"{info.vocabulary:,}",
        "context": f"{info.context_length:,} tokens",
        "window": "none" if info.window is None else f"{info.window:,} tokens",
        "cache": f"{info.cache_dtype}, {page}",
        "one call": f"up to {limits}",
        "first and last tokens": f"{begin}{' (put before a prompt)' if info.add_bos else ''}; {end}",
        "tokenizer, chat template": f"{info.tokenizer or 'none'}, {info.chat_template or 'none'}",
    }.items():
        table.add_row(key, value)
    return table


def _errors(level: Level) -> Any:
    from assay.cli.cases import cases_table

    verification = level.verification
    if not verification.cases:
        never = f"{level.target.name} was never compared with {verification.reference}."
        return f"{never} {verification.note or ''}".rstrip()
    title = f"Errors of {level.target.name} against {verification.reference}"
    if level.executed == "never":
        same = ", of the same schedules compiled for another CPU"
        title += ", of their source run on the CPU" if level.target.api else same
    return cases_table(verification.cases, title=title)


def _files(manifest: Manifest) -> Any:
    from rich.table import Table

    table = Table("file or tool", "bytes", "SHA-256 or version", title="Contents", title_justify="left")
    for name, file in manifest.files.items():
        table.add_row(name, f"{file.bytes:,}", file.sha256)
    for name, version in manifest.tools.items():
        table.add_row(name, "", version)
    return table
