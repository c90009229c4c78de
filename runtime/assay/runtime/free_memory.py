"""How much memory this process may still take: what the system has, and what its control groups allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory", "peak_memory"]

_ROOT = Path("/")


def free_memory(root: Path = _ROOT) -> int | None:
    """Bytes that can be had without swapping and within all control groups (v1 and v2); None if unknown.

    Files in memory count as free where the kernel can drop them. ``root`` is where ``/proc`` and ``/sys`` are
    looked for.
    """
    figures = [*_of_system(root / "proc/meminfo"), *_of_groups(root)]
    return max(0, min(figures)) if figures else None


def peak_memory(root: Path = _ROOT) -> int | None:
    """The most bytes that this process has had resident so far; None if unknown."""
    for line in _lines(root / "proc/self/status"):
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    return None


def _of_system(meminfo: Path) -> Iterator[int]:
    for line in _lines(meminfo):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024


def _of_groups(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, limit, usage = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # A group has the limits of those above it too. In a container its path is that outside of it, and the
        # group itself is mounted at the base.
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            yield from _left(folder, limit, usage)
            if folder == base:
                break


def _left(folder: Path, limit: str, usage: str) -> Iterator[int]:
    most, used = _number(folder / limit), _number(folder / usage)
    if most is None or used is None:
        return
    droppable = 0
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            droppable = max(droppable, int(value))
    yield most - used + min(droppable, used)


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None  # "max" is no limit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
