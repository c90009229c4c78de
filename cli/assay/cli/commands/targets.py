"""``assay targets``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import output_options
from assay.cli.output import Output

if TYPE_CHECKING:
    from assay.compile.targets import Target
    from assay.compile.targets.gpu_target import GpuTarget

__all__ = ["command"]


@click.command("targets")
@output_options
@click.pass_obj
def command(output: Output) -> None:
    """List what can be compiled for, and what this machine runs.

    A target or one of its aliases goes to --target; `native` stands for the most capable one that this CPU
    runs.

    \b
    Example:
      assay targets
      assay build light-squeezenet --target haswell
    """
    rows = _rows()
    if output.json:
        output.print_json(rows)
    elif output.quiet:
        for row in rows:
            output.print_line(row["name"])
    else:
        output.print(_table(rows))


def _rows() -> list[dict[str, Any]]:
    from assay.compile.targets import find_target, gpu_targets, targets
    from assay.errors import CpuFeatureError

    try:
        native = find_target("native").name
    except CpuFeatureError:
        native = None
    rows = []
    for name, target in targets().items():
        reason = _why_not(target)
        rows.append(
            {
                "name": name,
                "description": target.description,
                "aliases": list(targets().aliases(name)),
                "triple": target.triple,
                "cpu": target.cpu,
                "features": list(target.features),
                "native": name == native,
                "runs_here": reason is None,
                "why_not": reason,
            }
        )
    return rows + [_gpu_row(target) for target in gpu_targets().values()]


def _gpu_row(target: GpuTarget) -> dict[str, Any]:
    from assay.compile.device_execution import why_not_on_device

    reason = why_not_on_device(target)
    return {
        "name": target.name,
        "description": target.description,
        "aliases": list(target.aliases),
        "api": target.api.value,
        "architecture": target.architecture,
        "native": False,
        "runs_here": reason is None,
        "why_not": reason,
    }


def _why_not(target: Target) -> str | None:
    """What this machine lacks to run code for ``target``; None where it lacks nothing."""
    from assay.errors import CpuFeatureError
    from assay.runtime.cpu import canonical_feature, check_triple, detect_cpu

    try:
        check_triple(target.triple)
    except CpuFeatureError:
        return f"this is a {detect_cpu().machine} machine"
    missing = [name for name in target.features if canonical_feature(name) not in detect_cpu().features]
    return f"this CPU lacks {', '.join(missing)}" if missing else None


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table()
    for heading in ("target", "what it is", "aliases", "runs here"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "target")
    for row in rows:
        here = "yes (native)" if row["native"] else "yes" if row["runs_here"] else f"no: {row['why_not']}"
        table.add_row(row["name"], row["description"], ", ".join(row["aliases"]), here)
    return table
