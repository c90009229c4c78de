"""The micro-architecture of this machine's CPU, by the name that LLVM's ``-mcpu`` has for it.

Families and models as in LLVM's ``lib/TargetParser/Host.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["cpu_model", "microarchitecture", "named_microarchitectures"]

_CPUINFO = Path("/proc/cpuinfo")
_INTEL = {
    **dict.fromkeys((0x3C, 0x3F, 0x45, 0x46), "haswell"),
    **dict.fromkeys((0x3D, 0x47, 0x4F, 0x56), "broadwell"),
    **dict.fromkeys((0x4E, 0x5E, 0x8E, 0x9E, 0xA5, 0xA6), "skylake"),
    **dict.fromkeys((0x6A, 0x6C), "icelake-server"),
    0xA7: "rocketlake",
    0x8F: "sapphirerapids",
    0xCF: "emeraldrapids",
    **dict.fromkeys((0x97, 0x9A), "alderlake"),
    **dict.fromkeys((0xB7, 0xBA, 0xBF), "raptorlake"),
}
_CASCADELAKE_STEPPING = 5


@cache
def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """Vendor, family, model and stepping of the CPU, such as ``AuthenticAMD family 25 model 1 stepping 1``.

    ``unknown`` where the system does not tell.
    """
    found = _numbers(cpuinfo)
    if found is None:
        return "unknown"
    vendor, family, model, stepping = found
    return f"{vendor} family {family} model {model} stepping {stepping}"


def named_microarchitectures(names: str | Sequence[str]) -> dict[str, str]:
    """The micro-architectures that names of targets ask for, by the name of the target.

    ``native`` asks for this machine's, an alias such as ``znver3`` for its own; a plain level for none.
    """
    from assay.compile.targets import find_target, gpu_targets

    parts = names.split(",") if isinstance(names, str) else [p for name in names for p in name.split(",")]
    found: dict[str, str] = {}
    for name in (part.strip() for part in parts):
        if not name or name in gpu_targets():
            continue
        target = find_target(name)
        asked = microarchitecture() if name == "native" else name
        if asked is not None and asked != target.name:
            found[target.name] = asked
    return found


@cache
def microarchitecture(cpuinfo: Path = _CPUINFO) -> str | None:
    """The micro-architecture of this machine, such as ``znver3``; None for one that is not known here."""
    found = _numbers(cpuinfo)
    if found is None:
        return None
    vendor, family, model, stepping = found
    if vendor == "AuthenticAMD":
        return _amd(family, model)
    if vendor == "GenuineIntel" and family == 6:
        if model == 0x55:
            return "cascadelake" if stepping >= _CASCADELAKE_STEPPING else "skylake-avx512"
        return _INTEL.get(model)
    return None


def _amd(family: int, model: int) -> str | None:
    if family == 23:
        return "znver2" if model >= 0x30 else "znver1"
    if family == 25:
        older = model <= 0x0F or 0x20 <= model <= 0x5F
        return "znver3" if older else "znver4"
    return "znver5" if family == 26 else None


def _numbers(cpuinfo: Path) -> tuple[str, int, int, int] | None:
    """Vendor, family, model and stepping from Linux's cpuinfo."""
    try:
        first = cpuinfo.read_text(errors="replace").split("\n\n", 1)[0]
    except OSError:
        return None
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }
    try:
        return (
            fields["vendor_id"],
            int(fields["cpu family"]),
            int(fields["model"]),
            int(fields.get("stepping", "0")),
        )
    except (KeyError, ValueError):
        return None
