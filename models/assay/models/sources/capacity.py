"""Models that this machine's memory cannot hold are refused before they are read."""

from __future__ import annotations

import os
from pathlib import Path

from assay.errors import CapacityError

__all__ = ["check_memory", "memory_bytes"]

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_memory(name: str, needed: int, available: int | None = None) -> None:
    """Raises CapacityError where ``needed`` bytes are more than this machine (or ``available``) has."""
    available = memory_bytes() if available is None else available
    if needed > available:
        raise CapacityError(
            f"The model {name} needs at least {_gib(needed)} of memory to be built, "
            f"and this machine has {_gib(available)}.",
            hint="Take a smaller model, or a file whose weights are stored in fewer bits.",
        )


def memory_bytes() -> int:
    """Bytes of memory that this process may have in all: the machine's, or its control group's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
