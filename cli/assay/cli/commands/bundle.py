"""``assay bundle``."""

from __future__ import annotations

from pathlib import Path

import click

from assay.cli.options import cache_option, output_options
from assay.cli.output import Output

__all__ = ["command"]


@click.command("bundle")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--platform",
    required=True,
    help="Where it runs: linux-x86_64, linux-aarch64, linux-riscv64, macos-aarch64, macos-x86_64, "
    "windows-x86_64.",
)
@click.option(
    "-o",
    "--output",
    "destination",
    type=click.Path(path_type=Path),
    help="The folder to write (default: ARTIFACT-PLATFORM).",
)
@cache_option
@output_options
@click.pass_obj
def command(
    output: Output, artifact: Path, platform: str, destination: Path | None, cache: Path | None
) -> None:
    """Write a folder with all that a device needs to run an artifact.

    It holds the artifact, a runtime of about 200 kB as a program and as a library, and loaders for Python, C
    and C++. The device needs neither Python nor TVM.

    \b
    Example:
      assay build light-squeezenet --target aarch64-neon -o squeezenet
      assay bundle squeezenet --platform linux-aarch64 -o device
      assay build light-squeezenet --target x86-64-v3 --platform windows-x86_64 -o for-windows
      assay bundle for-windows --platform windows-x86_64
    """
    from assay.compile.bundle import write_bundle

    place = destination or artifact.with_name(f"{artifact.name}-{platform}")
    bundle = write_bundle(artifact, place, platform=platform, cache=cache, progress=output.progress())
    if output.json:
        output.print_json(
            {
                "path": str(bundle.path),
                "platform": bundle.platform,
                "level": bundle.level,
                "executed": bundle.executed.value,
                "bytes": bundle.bytes,
                "model_bytes": bundle.model_bytes,
            }
        )
        return
    output.print_line(str(bundle.path))
    if not output.quiet:
        model, rest = bundle.model_bytes / 1e6, (bundle.bytes - bundle.model_bytes) / 1e6
        output.print(f"  {model + rest:.1f} MB: the model {model:.1f}, the rest {rest:.1f}")
        if bundle.executed.value == "never":
            output.warn(f"The code for {bundle.level} was compiled and never executed.")
