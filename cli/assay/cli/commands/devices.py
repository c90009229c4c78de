"""``assay devices``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import output_options
from assay.cli.output import Output

if TYPE_CHECKING:
    from assay.runtime.devices import DeviceApi, DeviceInfo, Found

__all__ = ["command"]


@click.command("devices")
@output_options
@click.pass_obj
def command(output: Output) -> None:
    """List the devices that this machine has, by API, and what is missing.

    The APIs are in the order in which devices are preferred; the CPU comes behind devices that are real, and
    before those that it plays. A device goes to `assay run --device` as API:INDEX.

    \b
    Example:
      assay devices
      assay run resnet18 --device opencl:0
    """
    from assay.runtime.devices import device_apis

    found = [(api, api.find()) for api in device_apis().values()]
    if output.json:
        output.print_json([_row(api, each) for api, each in found])
    elif output.quiet:
        for _, each in found:
            for info in each.devices:
                output.print_line(f"{info.api}:{info.index}")
    else:
        output.print(_table(found))


def _row(api: DeviceApi, found: Found) -> dict[str, Any]:
    return {
        "api": api.name,
        "description": api.description,
        "devices": [{**asdict(info), "features": sorted(info.features)} for info in found.devices],
        "reason": found.reason,
        "remedy": found.remedy,
    }


def _table(found: list[tuple[DeviceApi, Found]]) -> Any:
    from rich.table import Table

    table = Table()
    for heading in ("device", "what it is", "architecture", "memory, free", "driver"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "device")
    for api, each in found:
        for info in each.devices:
            name = f"{info.name}, played by the CPU" if info.emulated else info.name
            version = ", ".join(part for part in (info.architecture, info.version) if part)
            table.add_row(f"{api.name}:{info.index}", name, version, _memory(info), info.driver or "")
        if not each.devices:
            remedy = f". {each.remedy}" if each.remedy else ""
            table.add_row(api.name, f"none: {each.reason or 'none was found'}{remedy}", "", "", "")
    return table


def _memory(info: DeviceInfo) -> str:
    """Total and free memory in words; where the API does not tell, nothing."""
    parts = []
    if info.total_memory is not None:
        parts.append(f"{info.total_memory / 1e9:.1f} GB")
    if info.free_memory is not None:
        parts.append(f"{info.free_memory / 1e9:.1f} GB")
    text = ", ".join(parts)
    return f"{text} (shared with the CPU)" if info.unified_memory and text else text
