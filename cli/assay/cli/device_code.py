"""What an artifact's kernels for GPUs take, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assay.runtime.artifact import Artifact
    from assay.runtime.device_code import DeviceCode, KernelResources

__all__ = ["device_code_table", "device_codes"]

_COLUMNS: Mapping[str, str] = {
    "registers": "registers",
    "scalar_registers": "scalar",
    "shared_bytes": "shared bytes",
    "stack_bytes": "stack bytes",
    "spills": "spills",
    "maximum_threads": "threads, most",
    "wave_size": "wave",
}


def device_codes(artifact: Artifact) -> dict[str, DeviceCode]:
    """The description of the device code of each level that has some, by the level's name."""
    from assay.runtime.device_code import decode_device_code

    return {
        level.target.name: decode_device_code(artifact.read(level.entry.library))
        for level in artifact.manifest.levels
        if level.entry.driver == "device"
    }


def device_code_table(level: str, code: DeviceCode) -> Any:
    """One row for each kernel; what no compiler here tells is left empty."""
    from rich.table import Table

    checks = f"; {'; '.join(code.checks)}" if code.checks else ""
    title = f"Kernels of {level}: {', '.join(code.files)}; compiler {code.compiler}{checks}"
    table = Table("kernel", title=title, title_justify="left")
    shown = [name for name in _COLUMNS if any(_value(each, name) for each in code.kernels.values())]
    for name in shown:
        table.add_column(_COLUMNS[name], justify="right")
    for kernel, resources in code.kernels.items():
        table.add_row(kernel, *(_value(resources, name) for name in shown))
    return table


def _value(resources: KernelResources, name: str) -> str:
    value = getattr(resources, name)
    return "" if value is None else f"{value:,}"
