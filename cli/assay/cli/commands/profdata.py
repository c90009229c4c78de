"""``assay profdata``."""

from __future__ import annotations

from pathlib import Path

import click

from assay.cli.options import level_option, output_options, threads_type
from assay.cli.output import Output

__all__ = ["command"]


@click.group("profdata")
def command() -> None:
    """Record, merge and show profile data, which guide `assay build --profile pgo`.

    \b
    Example:
      assay run minilm --input input_ids=a.npy --input attention_mask=b.npy --record inputs
      assay profdata record minilm --workload inputs -o here.json
      assay profdata merge here.json there.json -o minilm.json
      assay build minilm --profile pgo --profile-data minilm.json
    """


@command.command("record")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--workload",
    type=click.Path(path_type=Path),
    help="Folder of recorded inputs.  [default: representative inputs at several sizes]",
)
@level_option
@click.option("--threads", type=threads_type, default=1, show_default=True, help="Threads of the runs.")
@click.option(
    "-o", "--output", "destination", type=click.Path(path_type=Path), required=True, help="The file."
)
@output_options
@click.pass_obj
def record(
    output: Output, artifact: Path, workload: Path | None, level: str | None, threads: int, destination: Path
) -> None:
    """Run an artifact on a workload with its instrument, and write the raw profile."""
    import tempfile

    from assay.cli.artifacts import spec_from_manifest
    from assay.compile.pgo.data import write_profile
    from assay.compile.pgo.record import record_profile
    from assay.compile.pgo.workload import read_workload, representative_workload
    from assay.runtime.artifact import open_artifact
    from assay.runtime.levels import choose_level

    manifest = open_artifact(artifact).manifest
    chosen = choose_level(manifest, level).target.name
    cases = (
        representative_workload(spec_from_manifest(manifest))
        if workload is None
        else read_workload(workload, manifest.inputs)
    )
    with tempfile.TemporaryDirectory(prefix="assay-profile-") as folder:
        write_profile(destination, record_profile(artifact, cases, threads, Path(folder), level=chosen))
    _tell(output, destination)


@command.command("merge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE ...")
@click.option(
    "-o", "--output", "destination", type=click.Path(path_type=Path), required=True, help="The file."
)
@output_options
@click.pass_obj
def merge(output: Output, files: tuple[Path, ...], destination: Path) -> None:
    """Merge profiles of one model, of several runs and machines, into one file."""
    from assay.compile.pgo.data import merge_profiles, read_profile, write_profile

    write_profile(destination, merge_profiles([read_profile(path) for path in files]))
    _tell(output, destination)


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@output_options
@click.pass_obj
def show(output: Output, file: Path) -> None:
    """Show the sizes that a profile saw, and its kernels by time."""
    import msgspec
    from rich.table import Table

    from assay.compile.pgo.data import read_profile

    profile = read_profile(file)
    if output.json:
        output.print_json(msgspec.to_builtins(profile))
        return
    runs = Table(title=f"{profile.model.name}: runs", title_justify="left")
    for heading in ("machine", "threads", "sizes", "runs", "ms a run"):
        runs.add_column(heading, overflow="fold")
    for run in profile.runs:
        each = f"{run.seconds / run.runs * 1e3:.3g}"
        runs.add_row(run.machine, str(run.threads), _sizes(run.sizes), str(run.runs), each)
    kernels = Table(title="kernels by time", title_justify="left")
    for heading in ("kernel", "workload", "threads", "sizes", "calls", "ms"):
        kernels.add_column(heading, overflow="fold")
    for kernel in sorted(profile.kernels, key=lambda sample: -sample.seconds)[:20]:
        kernels.add_row(
            kernel.kernel,
            kernel.workload or "",
            str(kernel.threads),
            _sizes(kernel.sizes),
            str(kernel.calls),
            f"{kernel.seconds * 1e3:.3g}",
        )
    output.print(runs, kernels)


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items()) or "fixed"


def _tell(output: Output, destination: Path) -> None:
    if output.json:
        output.print_json({"path": str(destination)})
    else:
        output.print_line(str(destination))
