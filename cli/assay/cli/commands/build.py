"""``assay build``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.decoder_options import decoder_options, read_decoder_options
from assay.cli.failures import as_assay_error, report_failure
from assay.cli.options import build_options, cache_option, output_options, quantization_options
from assay.cli.output import Output
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.compile.build import BuildResult
    from assay.compile.pgo.rebuild import Guide

__all__ = ["command"]

_SUFFIX = ".assay"


@click.command("build")
@click.argument("models", nargs=-1, required=True, metavar="MODEL|FILE.onnx ...")
@build_options
@quantization_options
@click.option(
    "-o",
    "--output",
    "destination",
    type=click.Path(path_type=Path),
    help="Where the artifact goes; with several models, the folder that holds them all.  "
    "[default: artifacts/MODEL-TARGET-SCHEME-PROFILE]",
)
@click.option("--packed", is_flag=True, help="Write the artifact as one file, NAME.assay, not as a folder.")
@click.option(
    "--workload",
    type=click.Path(path_type=Path),
    help="For the profile pgo: folder of recorded inputs, as `assay run --record` writes.  "
    "[default: the model's representative inputs at several sizes]",
)
@click.option(
    "--profile-data",
    "profile_data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="For the profile pgo: profile data of `assay profdata`, in place of a run here; may be repeated.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="For the profile pgo: seconds to search for faster tiles.",
)
@click.option(
    "--records",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of tuning records, as `assay tune` writes.  [default: those that come with Assay]",
)
@click.option(
    "--platform",
    help="Code that `assay bundle` takes for this platform: linux-x86_64, linux-aarch64, linux-riscv64, "
    "macos-aarch64, macos-x86_64, windows-x86_64.  [default: for this runtime, on Linux]",
)
@decoder_options
@cache_option
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    models: tuple[str, ...],
    targets: tuple[str, ...],
    scheme: str | None,
    profile: str,
    overrides: tuple[str, ...],
    calibration: Path | None,
    destination: Path | None,
    packed: bool,
    workload: Path | None,
    profile_data: tuple[Path, ...],
    budget: float,
    records: Path | None,
    platform: str | None,
    cache_dtype: str | None,
    max_tokens: int | None,
    max_sequences: int | None,
    cache: Path | None,
) -> None:
    """Compile models to artifacts, each verified against ONNX Runtime.

    A model is a name from `assay models`, the path of an ONNX or GGUF file or of a Hugging Face folder, or
    ORGANIZATION/MODEL in the local hub directory. Nothing is written unless its outputs agree with ONNX
    Runtime's. A model that fails does not stop the others; the exit code is the
    first failure's. Prints the path of each artifact.

    \b
    Example:
      assay build light-squeezenet
      assay build model.onnx --target x86-64-v3 -o model-avx2
      assay build model.onnx --target x86-64-v2,x86-64-v3,x86-64-v4
      assay build light-squeezenet silero-vad -o built --packed
      assay build light-squeezenet --target x86-64-v3 --platform windows-x86_64
      assay build minilm --profile pgo --workload recorded
    """
    from assay.compile.build import build_artifact
    from assay.compile.profiles import profiles
    from assay.compile.quantize.prepare import find_plan
    from assay.compile.targets import find_targets
    from assay.models.registry import find_model

    output: Output = ctx.obj
    if profile != "pgo" and (workload is not None or profile_data):
        raise UsageError("--workload and --profile-data are for --profile pgo.")
    # A wrong name is told before anything is built.
    resolved, _, _ = find_targets(targets), find_plan(scheme or "f32", overrides), profiles()[profile]
    specs = {name: find_model(name) for name in models}
    if len({spec.name for spec in specs.values()}) < len(specs):
        raise UsageError("Two of the models have the same name, and so the same place.")
    decoder = read_decoder_options(list(specs.values()), cache_dtype, max_tokens, max_sequences)
    if platform is not None:
        from assay.compile.native.platforms import find_platform, for_platform

        for each in resolved:
            for_platform(each, find_platform(platform))
    target_names = "+".join([*(each.name for each in resolved), *([platform] if platform else [])])

    def place(model: str, stored: str) -> Path:
        variant = f"{target_names}-{stored}-{profile}"
        return _place(destination, model, variant, packed=packed, several=len(specs) > 1)

    results: list[BuildResult] = []
    code = 0
    for number, (name, spec) in enumerate(specs.items(), start=1):
        prefix = f"[{number}/{len(specs)}] {spec.name}: " if len(specs) > 1 else ""
        try:
            result = build_artifact(
                spec,
                target=targets,
                scheme=scheme,
                overrides=overrides,
                calibration=calibration,
                profile=profile,
                output=partial(place, spec.name),
                cache=cache,
                packed=packed,
                records=None if records is None else [records],
                guide=_guide(profile, workload, profile_data, budget),
                decoder=decoder,
                platform=platform,
                progress=output.progress(prefix, animated=profile != "pgo"),
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


def _guide(
    profile: str, workload: Path | None, profile_data: tuple[Path, ...], budget: float
) -> Guide | None:
    if profile != "pgo":
        return None
    from assay.compile.pgo.rebuild import Guide

    return Guide(workload=workload, profiles=profile_data, budget=budget)


def _place(destination: Path | None, model: str, variant: str, *, packed: bool, several: bool) -> Path:
    suffix = _SUFFIX if packed else ""
    if destination is None:
        return Path("artifacts") / f"{model}-{variant}{suffix}"
    return destination / f"{model}{suffix}" if several else destination


def _tell(output: Output, result: BuildResult) -> None:
    from assay.cli.cases import worst_case
    from assay.cli.workspace import workspace_text

    manifest = result.manifest
    output.print_line(str(result.path))
    how = "from the cache" if result.cached else f"built in {sum(result.seconds.values()):.1f} s"
    several = len(manifest.levels) > 1
    if several:
        output.note(f"  {how}")
    for level in manifest.levels:
        name, verification = level.target.name, level.verification
        worst = worst_case(verification.cases)
        if level.executed == "never":
            output.warn(
                f"{manifest.model.name} for {name}: {verification.note or 'Compiled, never executed.'}"
            )
        elif worst is not None:
            under = " under an emulator" if level.executed == "emulated" else ""
            count = len(verification.cases)
            comparisons = f"{count} comparison" + ("" if count == 1 else "s")
            start = f"{name}:" if several else f"{how};"
            output.note(
                f"  {start} agrees with {verification.reference} in {comparisons}{under}, "
                f"largest absolute error {worst.max_absolute_error:.1e}"
            )
    for note in result.notes:
        output.note(f"  {note}")
    output.note(f"  intermediate results need {workspace_text(manifest)}")
    unscheduled = sorted({name for level in manifest.levels for name in level.unscheduled_kernels})
    if unscheduled:
        output.warn(f"No schedule fits, so they are slow: {', '.join(unscheduled)}")


def _as_json(result: BuildResult) -> dict[str, Any]:
    import msgspec

    manifest = result.manifest
    return {
        "model": manifest.model.name,
        "path": str(result.path),
        "target": ",".join(level.target.name for level in manifest.levels),
        "scheme": manifest.scheme,
        "quantization": msgspec.to_builtins(manifest.quantization),
        "profile": manifest.profile,
        "cached": result.cached,
        "seconds": result.seconds,
        "notes": list(result.notes),
        "levels": [
            {
                "target": level.target.name,
                "executed": level.executed.value,
                "verification": msgspec.to_builtins(level.verification),
            }
            for level in manifest.levels
        ],
    }
