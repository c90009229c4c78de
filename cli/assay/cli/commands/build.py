"""``assay build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.failures import as_assay_error, report_failure
from assay.cli.options import build_options, cache_option, output_options
from assay.cli.output import Output
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.compile.build import BuildResult

__all__ = ["command"]

_SUFFIX = ".assay"


@click.command("build")
@click.argument("models", nargs=-1, required=True, metavar="MODEL|FILE.onnx ...")
@build_options
@click.option(
    "-o",
    "--output",
    "destination",
    type=click.Path(path_type=Path),
    help="Where the artifact goes; with several models, the folder that holds them all.  "
    "[default: artifacts/MODEL-TARGET-SCHEME-PROFILE]",
)
@click.option("--packed", is_flag=True, help="Write the artifact as one file, NAME.assay, not as a folder.")
@cache_option
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    models: tuple[str, ...],
    target: str,
    scheme: str,
    profile: str,
    destination: Path | None,
    packed: bool,
    cache: Path | None,
) -> None:
    """Compile models to artifacts, each verified against ONNX Runtime.

    A model is a name from `assay models`, or the path of an ONNX file. Nothing is written unless its
    outputs agree with ONNX Runtime's. A model that fails does not stop the others; the exit code is the
    first failure's. Prints the path of each artifact.

    \b
    Example:
      assay build light-squeezenet
      assay build model.onnx --target x86-64-v3 -o model-avx2
      assay build light-squeezenet silero-vad -o built --packed
    """
    from assay.compile.build import build_artifact
    from assay.compile.profiles import profiles
    from assay.compile.schemes import schemes
    from assay.compile.targets import find_target
    from assay.models.registry import find_model

    output: Output = ctx.obj
    # A wrong name is told before anything is built.
    resolved, _, _ = find_target(target), schemes()[scheme], profiles()[profile]
    specs = {name: find_model(name) for name in models}
    variant = f"{resolved.name}-{scheme}-{profile}"
    places = {
        name: _place(destination, spec.name, variant, packed=packed, several=len(specs) > 1)
        for name, spec in specs.items()
    }
    if len(set(places.values())) < len(places):
        raise UsageError("Two of the models have the same name, and so the same place.")
    results: list[BuildResult] = []
    code = 0
    for number, (name, spec) in enumerate(specs.items(), start=1):
        prefix = f"[{number}/{len(specs)}] {spec.name}: " if len(specs) > 1 else ""
        try:
            result = build_artifact(
                spec,
                target=target,
                scheme=scheme,
                profile=profile,
                output=places[name],
                cache=cache,
                packed=packed,
                progress=output.progress(prefix),
            )
        except Exception as error:
            if len(specs) == 1 or as_assay_error(error) is None:
                raise
            output.note(f"{name} failed:")
            failed = report_failure(error, output)
            code = code or failed
            continue
        results.append(result)
        if not output.json:
            _tell(output, result)
    if output.json:
        output.print_json([_as_json(result) for result in results])
    ctx.exit(code)


def _place(destination: Path | None, model: str, variant: str, *, packed: bool, several: bool) -> Path:
    suffix = _SUFFIX if packed else ""
    if destination is None:
        return Path("artifacts") / f"{model}-{variant}{suffix}"
    return destination / f"{model}{suffix}" if several else destination


def _tell(output: Output, result: BuildResult) -> None:
    from assay.cli.cases import worst_case

    manifest = result.manifest
    output.print_line(str(result.path))
    how = "from the cache" if result.cached else f"built in {sum(result.seconds.values()):.1f} s"
    worst = worst_case(manifest.verification.cases)
    if not manifest.target.executed:
        note = manifest.verification.note or "Compiled, never executed."
        output.warn(f"{manifest.model.name} for {manifest.target.name}: {note}")
    elif worst is not None:
        count = len(manifest.verification.cases)
        comparisons = f"{count} comparison" + ("" if count == 1 else "s")
        output.note(
            f"  {how}; agrees with {manifest.verification.reference} in {comparisons}, "
            f"largest absolute error {worst.max_absolute_error:.1e}"
        )
    if manifest.unscheduled_kernels:
        output.warn(f"No schedule fits, so they are slow: {', '.join(manifest.unscheduled_kernels)}")


def _as_json(result: BuildResult) -> dict[str, Any]:
    import msgspec

    manifest = result.manifest
    return {
        "model": manifest.model.name,
        "path": str(result.path),
        "target": manifest.target.name,
        "scheme": manifest.scheme,
        "profile": manifest.profile,
        "cached": result.cached,
        "seconds": result.seconds,
        "verification": msgspec.to_builtins(manifest.verification),
    }
