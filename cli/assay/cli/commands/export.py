"""``assay export``."""

from __future__ import annotations

from pathlib import Path

import click

from assay.cli.options import output_options
from assay.cli.output import Output

__all__ = ["command"]


@click.command("export")
@click.argument("model")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to.  [default: exported/NAME]",
)
@output_options
@click.pass_obj
def command(output: Output, model: str, folder: Path | None) -> None:
    """Export a model to canonical ONNX.

    MODEL is a name from `assay models`, or the path of an ONNX or GGUF file or of a Hugging Face folder.
    Canonical ONNX is checked, bound to the model's interface and folded; it is what is compiled, and what
    ONNX Runtime is given to compare with.

    \b
    Example:
      assay export silero-vad -o exported/silero-vad
    """
    from assay.models.export import export_canonical
    from assay.models.registry import find_model

    spec = find_model(model)
    exported = export_canonical(spec, folder or Path("exported") / spec.name, progress=output.progress())
    if output.json:
        output.print_json(
            {
                "model": spec.name,
                "path": str(exported.path),
                "digest": exported.digest,
                "source_digest": exported.source_digest,
                "inputs": [item.name for item in exported.spec.inputs],
                "outputs": [
                    {"name": item.name, "dtype": item.dtype.value, "shape": list(item.shape)}
                    for item in exported.outputs
                ],
            }
        )
        return
    output.print_line(str(exported.path))
    for item in exported.outputs:
        shape = ", ".join(str(dim) for dim in item.shape)
        output.note(f"output {item.name}: {item.dtype.value}[{shape}]")
    output.note(f"digest {exported.digest}")
