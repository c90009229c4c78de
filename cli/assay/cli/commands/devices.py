"""``assay devices``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import output_options
from assay.cli.output import Output
from assay.cli.remote_options import key_file_option

if TYPE_CHECKING:
    from assay.runtime.devices import DeviceApi, DeviceInfo, Found

__all__ = ["command"]


@click.command("devices")
@click.option(
    "--tracker", metavar="HOST:PORT", help="List the devices that registered with this tracker too."
)
@key_file_option
@output_options
@click.pass_obj
def command(output: Output, tracker: str | None, key_file: Path | None) -> None:
    """List the devices of this machine, by API, and those of other machines.

    The APIs are in the order in which devices are preferred; the CPU comes behind devices that are real, and
    before those that it plays. A device goes to `assay run --device` as API:INDEX.

    Of other machines, those of the devices file are listed (ASSAY_DEVICES, or assay/devices.toml in the
    user's folder of settings), and with --tracker those that registered there. They go to `assay bench
    --device` and `assay tune --device`. With --key-file, tracked devices are asked what they are.

    \b
    Example:
      assay devices
      assay run resnet18 --device opencl:0
      assay devices --tracker 192.168.1.2:9191 --key-file lab.key
    """
    from assay.cli.remote_devices import remote_rows, remote_table
    from assay.runtime.devices import device_apis

    remote = remote_rows(tracker, key_file)
    found = [(api, api.find()) for api in device_apis().values()]
    if output.json:
        others = [{"api": "remote", **asdict(row)} for row in remote]
        output.print_json([*(_row(api, each) for api, each in found), *others])
    elif output.quiet:
        for _, each in found:
            for info in each.devices:
                output.print_line(f"{info.api}:{info.index}")
        for row in remote:
            output.print_line(row.name)
    else:
        output.print(_table(found), *([remote_table(remote)] if remote else []))


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
