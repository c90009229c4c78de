"""This machine's CPU: what it is, which instruction sets it has, and how many cores this process may use."""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from assay.errors import CpuFeatureError

__all__ = [
    "Cpu",
    "available_cores",
    "available_cpus",
    "canonical_feature",
    "canonical_machine",
    "check_features",
    "check_triple",
    "detect_cpu",
    "missing_features",
]

_CPUINFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")

# One name per machine and per feature, whatever Linux, macOS, Windows and LLVM call it.
_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_FEATURES = {
    "pni": "sse3",
    "abm": "lzcnt",
    "bmi": "bmi1",
    "asimd": "neon",
    "advsimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
    "fphp": "fullfp16",
}
_LEVELS = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma"),
    "x86-64-v3": ("avx2", "fma", "bmi1", "bmi2", "f16c"),
    "x86-64-v2": ("sse42", "ssse3", "popcnt"),
}


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """A CPU: ``machine`` as ``x86_64`` or ``aarch64``, ``system`` as ``linux`` or ``darwin``, model name, and
    its instruction-set features by canonical name."""

    machine: str
    system: str
    name: str
    features: frozenset[str]


def canonical_machine(name: str) -> str:
    """``x86_64`` for ``AMD64``, ``aarch64`` for ``arm64``, otherwise the name in lower case."""
    return _MACHINES.get(name.lower(), name.lower())


def canonical_feature(name: str) -> str:
    """One name for a feature: ``avx512vnni`` for Linux's ``avx512_vnni``, ``neon`` for its ``asimd``."""
    plain = name.lower().lstrip("+").translate(str.maketrans("", "", "._-"))
    return _FEATURES.get(plain, plain)


@functools.cache
def detect_cpu() -> Cpu:
    """The CPU that this process runs on, detected once."""
    if sys.platform == "darwin":
        name, features = _darwin_cpu()
    else:
        name, features = _linux_cpu(_CPUINFO)
    return Cpu(
        machine=canonical_machine(platform.machine()),
        system=platform.system().lower(),
        name=name,
        features=frozenset(map(canonical_feature, features)),
    )


def check_triple(triple: str, cpu: Cpu | None = None) -> None:
    """Raise CpuFeatureError when code for ``triple`` (as ``x86_64-linux-gnu``) cannot run on ``cpu``."""
    cpu = cpu or detect_cpu()
    machine, _, rest = triple.partition("-")
    if canonical_machine(machine) != cpu.machine:
        raise CpuFeatureError(
            f"The artifact is for {canonical_machine(machine)} machines; this one is {cpu.machine}.",
            hint="Build it for this machine: assay build MODEL --target native.",
        )
    systems = {"linux": "linux", "macos": "darwin", "darwin": "darwin", "windows": "windows"}
    wanted = next((systems[word] for part in rest.split("-") for word in systems if word in part), cpu.system)
    if wanted != cpu.system:
        raise CpuFeatureError(
            f"The artifact is for {wanted}; this machine runs {cpu.system}.",
            hint="Build it for this machine: assay build MODEL --target native.",
        )


def missing_features(required: Iterable[str], cpu: Cpu | None = None) -> list[str]:
    """Those of ``required`` that ``cpu`` (this machine's) lacks, sorted."""
    features = (cpu or detect_cpu()).features
    return sorted(name for name in set(required) if canonical_feature(name) not in features)


def check_features(required: Iterable[str], cpu: Cpu | None = None) -> None:
    """Raise CpuFeatureError, listing what is missing, when ``cpu`` (this machine's) lacks a feature."""
    cpu = cpu or detect_cpu()
    missing = missing_features(required, cpu)
    if not missing:
        return
    level = next((level for level, needs in _LEVELS.items() if cpu.features.issuperset(needs)), None)
    fitting = f"{level} or native" if level else "native"
    raise CpuFeatureError(
        f"This CPU ({cpu.name}) lacks {', '.join(missing)}, which the artifact needs.",
        hint=f"Build it for a target that this CPU has ({fitting}): assay build MODEL --target native.",
    )


def available_cpus() -> tuple[int, ...]:
    """Logical CPUs, by number, that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def available_cores() -> int:
    """Physical cores that this process may use, at least 1.

    Hyper-threads of one core count once, and a container's CPU quota, rounded up, is a limit.
    """
    cpus = available_cpus()
    cores = len({_siblings(cpu) for cpu in cpus})
    quota = _cpu_quota()
    return max(1, min(cores, quota) if quota else cores)


def _siblings(cpu: int) -> str:
    path = _TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _cpu_quota() -> int | None:
    """CPUs that the control group of this process grants, rounded up; None without a limit."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (_CGROUP / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (_CGROUP / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return max(1, -(-int(quota) // int(period)))


def _linux_cpu(cpuinfo: Path) -> tuple[str, list[str]]:
    """Model name and feature names of the first CPU in Linux's cpuinfo; nothing where there is none."""
    try:
        fields = dict(_fields(cpuinfo.read_text(errors="replace")))
    except OSError:
        return platform.processor() or "unknown", []
    name = fields.get("model name") or fields.get("uarch") or fields.get("CPU part") or "unknown"
    features = (fields.get("flags") or fields.get("Features") or "").split()
    # RISC-V: rv64imafdcv_zicsr_zifencei, single letters up to the first underscore.
    letters, *extensions = fields.get("isa", "").removeprefix("rv64").removeprefix("rv32").split("_")
    return name, [*features, *letters, *extensions]


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


def _darwin_cpu() -> tuple[str, list[str]]:
    import subprocess

    listing = subprocess.run(
        ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True, check=False
    ).stdout
    values = dict(line.partition(": ")[::2] for line in listing.splitlines())
    features: list[str] = []
    for key, value in values.items():
        if key in ("machdep.cpu.features", "machdep.cpu.leaf7_features", "machdep.cpu.extfeatures"):
            features += value.replace("AVX1.0", "AVX").split()
        elif key.startswith("hw.optional.") and value == "1":
            features.append(key.rpartition(".")[2].removeprefix("FEAT_"))
    return values.get("machdep.cpu.brand_string", "unknown"), features
