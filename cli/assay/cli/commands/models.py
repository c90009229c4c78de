"""``assay models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import output_options
from assay.cli.output import Output

if TYPE_CHECKING:
    from assay.models.spec import InputSpec, ModelSpec

__all__ = ["command"]


@click.command("models")
@output_options
@click.pass_obj
def command(output: Output) -> None:
    """List the models that Assay knows by name.

    A file needs no name (ONNX, GGUF), nor does a Hugging Face folder: give the path wherever a model is asked
    for.

    \b
    Example:
      assay models
      assay models --json | jq -r '.[] | select(.needs_torch | not).name'
    """
    from assay.models.registry import models

    specs = list(models().values())
    if output.json:
        output.print_json([_as_json(spec) for spec in specs])
    elif output.quiet:
        for spec in specs:
            output.print_line(spec.name)
    else:
        output.print(_table(specs))


def _as_json(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "inputs": [
            {"name": item.name, "dtype": item.dtype.value, "shape": _shape_json(item)} for item in spec.inputs
        ],
        "weights": spec.weights.value,
        "licence": spec.licence,
        "needs_torch": spec.needs_torch,
        "takes_files": spec.decode_file is not None,
        "generates_text": spec.decoder is not None,
        "tags": sorted(spec.tags),
    }


def _shape_json(item: InputSpec) -> list[Any]:
    return [
        dim
        if isinstance(dim, int)
        else {"name": dim.name, "default": dim.default, "minimum": dim.minimum, "maximum": dim.maximum}
        for dim in item.shape
    ]


def _table(specs: list[ModelSpec]) -> Any:
    from rich.table import Table

    table = Table()
    for heading in ("model", "what it is", "inputs", "weights", "licence", "needs"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("model", "weights", "licence"))
    for spec in specs:
        needs = "torch" if spec.needs_torch else ""
        table.add_row(
            spec.name, spec.description, _inputs_text(spec), spec.weights.value, spec.licence, needs
        )
    return table


def _inputs_text(spec: ModelSpec) -> str:
    if spec.decoder is not None:
        # Its ONNX form has two inputs a layer for the cache, which nobody gives by hand.
        return f"text of up to {spec.decoder.context_length} tokens"
    return "\n".join(f"{item.name}: {item.dtype.value}[{_shape_text(item)}]" for item in spec.inputs)


def _shape_text(item: InputSpec) -> str:
    return ", ".join(str(dim) if isinstance(dim, int) else dim.name for dim in item.shape)
