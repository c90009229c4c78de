"""``assay profile``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import level_option, output_options, parse_sizes, size_option, threads_type
from assay.cli.output import Output
from assay.errors import MissingDependencyError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.benchmarks.ceilings import Ceilings
    from assay.runtime import Model
    from assay.runtime.kernels import Kernel
    from assay.runtime.timing import KernelTimes

__all__ = ["command"]


@click.command("profile")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "-i",
    "--input",
    "files",
    multiple=True,
    metavar="[NAME=]FILE",
    help="An input, as of `assay run`; may be repeated.",
)
@size_option
@click.option("--seed", default=0, show_default=True, help="Of generated inputs.")
@level_option
@click.option("--threads", type=threads_type, help="Threads of the run.  [default: the physical cores]")
@click.option(
    "--repeat",
    "repeats",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Runs that are observed, and as many that are not.",
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Write every observed run as a trace for Perfetto or Chrome.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg|png",
    help="Draw the roofline and the kernels' times (extra: plot).",
)
@click.option("--measure-ceilings", is_flag=True, help="Measure this machine's ceilings again.")
@output_options
@click.pass_obj
def command(
    output: Output,
    artifact: Path,
    files: tuple[str, ...],
    sizes: tuple[str, ...],
    seed: int,
    level: str | None,
    threads: int | None,
    repeats: int,
    trace: Path | None,
    plot: Path | None,
    measure_ceilings: bool,
) -> None:
    """Show where the time of a run goes, kernel by kernel.

    Every kernel's time, operations and bytes a second, and how near that is to what this machine can do at
    most: its peak of multiply-adds and the bandwidth of its caches and memory, measured once, by kernels made
    by the same compiler, and kept in the user's cache folder. The sum is shown beside runs that are not
    observed.

    \b
    Example:
      assay profile squeezenet --threads 1
      assay profile bert --size sequence=64 --trace bert.json --plot bert.svg
    """
    from assay.benchmarks.plots import check_plot, plot_profile
    from assay.benchmarks.profiling import make_profile
    from assay.cli.artifacts import spec_from_manifest
    from assay.cli.generated_inputs import inputs_or_generated
    from assay.cli.profile_report import profile_json, profile_summary, profile_table
    from assay.runtime import load

    if plot is not None:
        check_plot(plot)
    model = load(artifact, threads=threads, level=level)
    manifest = model.manifest
    spec = spec_from_manifest(manifest)
    inputs = inputs_or_generated(files, parse_sizes(sizes), seed, manifest, spec, output)
    kernels = _descriptions(artifact, model, _sizes(model, inputs))
    if not kernels:
        output.warn("The artifact does not describe its kernels: their operations and bytes are not known.")
    ceilings = _ceilings(model.threads, measure_ceilings, output)
    times = model.kernel_times(inputs, repeats=repeats)
    profile = make_profile(times, kernels, ceilings)
    name = manifest.model.name
    if trace is not None:
        _write_trace(trace, name, times, kernels)
    title = f"{name}, {model.threads} thread" + ("" if model.threads == 1 else "s")
    if plot is not None:
        plot_profile(profile, plot, title=title)
    if output.json:
        built = {
            "target": model.level.target.name,
            "scheme": manifest.scheme,
            "profile": manifest.profile,
        }
        output.print_json(profile_json(profile, model=name, sizes=_sizes(model, inputs)) | built)
        return
    output.print(profile_table(profile, title=title))
    for line in profile_summary(profile):
        output.print_line(line)
    for path in (trace, plot):
        if path is not None:
            output.note(f"written: {path}")


def _descriptions(path: Path, model: Model, sizes: Mapping[str, int]) -> dict[str, Kernel]:
    """What the artifact says about its kernels for these sizes; nothing where it has no such file."""
    from assay.runtime.artifact import open_artifact
    from assay.runtime.kernels import decode_kernels, kernels_file

    special = (each.entry for each in model.level.specializations if each.sizes.items() <= sizes.items())
    entry = next(special, model.level.entry)
    artifact = open_artifact(path, verify=False)
    name = kernels_file(entry.library)
    return decode_kernels(artifact.read(name)) if name in artifact.manifest.files else {}


def _ceilings(threads: int, refresh: bool, output: Output) -> Ceilings | None:
    from assay.benchmarks.ceilings import find_ceilings

    try:
        return find_ceilings(threads, refresh=refresh, progress=output.progress())
    except MissingDependencyError as error:
        if refresh:
            raise
        output.warn(f"This machine's ceilings are not known, and not measured: {error.message}")
        return None


def _write_trace(path: Path, name: str, times: KernelTimes, kernels: dict[str, Kernel]) -> None:
    from assay.benchmarks.trace import encode_trace
    from assay.runtime.atomic import replace_file

    content = encode_trace(name, times, kernels)
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def _sizes(model: Model, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
    """The size of each symbolic dimension of the run."""
    found: dict[str, int] = {}
    for item in model.inputs:
        for dim, size in zip(item.shape, inputs[item.name].shape, strict=True):
            if not isinstance(dim, int):
                found[dim.name] = int(size)
    return found
