"""``assay verify``."""

from __future__ import annotations

from pathlib import Path

import click

from assay.cli.options import cache_option, level_option, output_options
from assay.cli.output import Output

__all__ = ["command"]


@click.command("verify")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--model", help="The model that it was built from, where its name is not enough: an ONNX file.")
@level_option
@click.option(
    "--emulate",
    is_flag=True,
    help="Run levels that this machine lacks under an emulator, and note in the artifact that they ran: "
    "Bochs for x86-64, QEMU's user mode for other machines, Wine for Windows.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=3600.0,
    show_default=True,
    help="Seconds for one level in the emulated machine.",
)
@cache_option
@output_options
@click.pass_obj
def command(
    output: Output,
    artifact: Path,
    model: str | None,
    level: str | None,
    emulate: bool,
    timeout: float,
    cache: Path | None,
) -> None:
    """Compare an artifact's outputs with ONNX Runtime's again.

    Every file's digest is checked, the model is exported anew (or taken from the cache), and the outputs of
    every level that runs here are compared on representative inputs at several sizes of each symbolic
    dimension: on this CPU, on a device, and under QEMU's user mode or Wine where they are installed.

    \b
    Example:
      assay verify artifacts/silero-vad-x86-64-v3-f32-release
      assay verify model-avx2 --model model.onnx
      assay verify artifacts/silero-vad-x86-64-v4-f32-release --emulate
    """
    from assay.cli.artifacts import model_behind
    from assay.runtime.artifact import open_artifact

    manifest = open_artifact(artifact).manifest
    spec = model_behind(manifest, model)

    from assay.compile.reverify import verify_again, verify_emulated

    if emulate:
        found = verify_emulated(
            artifact, spec, level=level, timeout=timeout, cache=cache, progress=output.progress()
        )
    else:
        found = verify_again(artifact, spec, level=level, cache=cache, progress=output.progress())
    if output.json:
        import msgspec

        output.print_json({"path": str(artifact), "levels": msgspec.to_builtins(found)})
        return
    from assay.cli.cases import cases_table

    for name, cases in found.items():
        if not output.quiet:
            title = f"{manifest.model.name} for {name}: errors against ONNX Runtime"
            output.print(cases_table(cases, title=title))
    left_out = [each.target.name for each in manifest.levels if each.target.name not in found]
    if left_out and level is None and not emulate:
        output.warn(f"Not compared, since this machine cannot run it: {', '.join(left_out)}.")
    output.print_line(f"{artifact} agrees with ONNX Runtime.")
