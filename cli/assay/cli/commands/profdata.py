"""``assay profdata``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import level_option, output_options, threads_type
from assay.cli.output import Output
from assay.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from assay.compile.pgo.data import KernelSample, ProfileData

__all__ = ["command"]

_KERNELS = 20


@click.command("profdata")
@click.argument("sources", nargs=-1, required=True, metavar="ARTIFACT|FILE ...")
@click.option(
    "--workload",
    type=click.Path(path_type=Path),
    help="Folder of recorded inputs for an artifact.  [default: representative inputs at several sizes]",
)
@level_option
@click.option(
    "--threads", type=threads_type, default=1, show_default=True, help="Threads of an artifact's runs."
)
@click.option(
    "-o", "--output", "destination", type=click.Path(path_type=Path), help="Write the merged profile here."
)
@output_options
@click.pass_obj
def command(
    output: Output,
    sources: tuple[str, ...],
    workload: Path | None,
    level: str | None,
    threads: int,
    destination: Path | None,
) -> None:
    """Record, merge and show profile data, which guide `assay build --profile pgo`.

    An artifact is run on a workload with its instrument; a file holds what such runs found, here or
    elsewhere. All of one model are merged; -o writes them, and without it they are shown.

    \b
    Example:
      assay profdata minilm --workload recorded -o here.json
      assay profdata here.json there.json -o minilm.json
      assay profdata minilm.json
    """
    from assay.cli.artifacts import is_artifact
    from assay.compile.pgo.data import merge_profiles, read_profile, write_profile

    artifacts = [source for source in sources if is_artifact(source)]
    if workload is not None and not artifacts:
        raise UsageError("--workload is for an artifact, and there is none.")
    profile = merge_profiles(
        [
            _record(Path(source), workload, level, threads)
            if source in artifacts
            else read_profile(Path(source))
            for source in sources
        ]
    )
    if destination is not None:
        write_profile(destination, profile)
    if output.json:
        _print_json(output, profile, destination)
    elif destination is not None:
        output.print_line(str(destination))
    else:
        output.print(*_tables(profile))


def _record(artifact: Path, workload: Path | None, level: str | None, threads: int) -> ProfileData:
    import tempfile

    from assay.cli.artifacts import spec_from_manifest
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
        return record_profile(artifact, cases, threads, Path(folder), level=chosen)


def _print_json(output: Output, profile: ProfileData, destination: Path | None) -> None:
    import msgspec

    if destination is not None:
        output.print_json({"path": str(destination)})
    else:
        output.print_json(msgspec.to_builtins(profile))


def _tables(profile: ProfileData) -> list[Table]:
    from rich.table import Table

    runs = Table(title=f"runs of {profile.model.name}", title_justify="left")
    for heading in ("machine", "threads", "sizes", "runs", "ms a run"):
        runs.add_column(heading, overflow="fold")
    for run in profile.runs:
        each = f"{run.seconds / run.runs * 1e3:.3g}"
        runs.add_row(run.machine, str(run.threads), _sizes(run.sizes), str(run.runs), each)
    hottest = sorted(profile.kernels, key=lambda sample: -sample.seconds)[:_KERNELS]
    return [runs, _kernel_table(hottest)]


def _kernel_table(kernels: Sequence[KernelSample]) -> Table:
    from rich.table import Table

    table = Table(title="kernels by time", title_justify="left")
    for heading in ("kernel", "threads", "sizes", "calls", "ms"):
        table.add_column(heading, overflow="fold")
    for kernel in kernels:
        time = f"{kernel.seconds * 1e3:.3g}"
        table.add_row(kernel.kernel, str(kernel.threads), _sizes(kernel.sizes), str(kernel.calls), time)
    return table


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items()) or "fixed"
