"""The machine that measurements are made on: its fingerprint, and which CPUs to pin threads to."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from assay.errors import UsageError
from assay.results.record import Machine
from assay.runtime.cpu import available_cores, available_cpus, detect_cpu

__all__ = ["cache_sizes", "choose_cpus", "fingerprint"]

_CPUINFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")


def fingerprint() -> Machine:
    """What this machine is, as far as the system tells."""
    cpu = detect_cpu()
    cpus = available_cpus()
    return Machine(
        cpu=cpu.name,
        architecture=cpu.machine,
        features=tuple(sorted(cpu.features)),
        cores=available_cores(),
        cpus=len(cpus),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        governor=_read(_TOPOLOGY / f"cpu{cpus[0]}" / "cpufreq" / "scaling_governor"),
        virtualisation=_virtualisation(),
    )


def choose_cpus(count: int, available: Sequence[int] | None = None) -> tuple[int, ...]:
    """``count`` logical CPUs to pin to: of different physical cores as far as there are enough.

    Raises UsageError when this process may use fewer.
    """
    cpus = available_cpus() if available is None else tuple(available)
    if count > len(cpus):
        raise UsageError(
            f"{count} threads were asked for, but this process may use {len(cpus)} CPUs.",
            hint="Threads that share a CPU wait for each other, and measure nothing.",
        )
    # The last CPUs first: the first ones serve more interrupts.
    by_core: dict[str, list[int]] = {}
    for cpu in reversed(cpus):
        siblings = _read(_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list")
        by_core.setdefault(siblings or str(cpu), []).append(cpu)
    turns = max(len(core) for core in by_core.values())
    order = [core[turn] for turn in range(turns) for core in by_core.values() if turn < len(core)]
    return tuple(sorted(order[:count]))


def cache_sizes(topology: Path = _TOPOLOGY) -> list[tuple[int, int, bool]]:
    """Level, bytes, and whether it is one core's own, of each data cache of the first CPU, innermost first.

    Empty where the system does not tell.
    """
    found = []
    for folder in sorted((topology / f"cpu{available_cpus()[0]}" / "cache").glob("index*")):
        kind, level = _read(folder / "type"), _read(folder / "level")
        size, sharers = _read(folder / "size"), _read(folder / "shared_cpu_list")
        if kind in ("Data", "Unified") and level and size and size.endswith("K"):
            siblings = _read(folder.parent.parent / "topology" / "thread_siblings_list")
            found.append((int(level), int(size[:-1]) * 1024, sharers == siblings))
    return sorted(found)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _virtualisation() -> str | None:
    """The hypervisor's maker, or ``yes`` where only its presence shows; None where nothing does."""
    flags = _read(_CPUINFO) or ""
    if " hypervisor" not in flags:
        return None
    vendor = _read(Path("/sys/class/dmi/id/sys_vendor"))
    return vendor or "yes"


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
