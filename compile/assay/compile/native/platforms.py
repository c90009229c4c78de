"""What the native runtime is compiled for: one machine with one operating system a platform."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from assay.registry import Registry
from assay.runtime.cpu import canonical_machine

__all__ = ["Platform", "find_platform", "platform_of", "platforms"]


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A platform: ``machine`` and ``system`` as the triples of targets have them.

    ``program_triple`` and ``library_triple`` are zig's, of the program and of the shared library;
    ``library_name`` and ``program_name`` how the system calls them.
    """

    name: str
    machine: str
    system: str
    program_triple: str
    library_triple: str
    program_name: str = "assay-run"
    library_name: str = "libassay_runtime.so"


# A program with musl's libc inside runs on every Linux; glibc 2.28 is that of Debian 10 and RHEL 8.
_PLATFORMS = (
    Platform(
        name="linux-x86_64",
        machine="x86_64",
        system="linux",
        program_triple="x86_64-linux-musl",
        library_triple="x86_64-linux-gnu.2.28",
    ),
    Platform(
        name="linux-aarch64",
        machine="aarch64",
        system="linux",
        program_triple="aarch64-linux-musl",
        library_triple="aarch64-linux-gnu.2.28",
    ),
    Platform(
        name="linux-riscv64",
        machine="riscv64",
        system="linux",
        program_triple="riscv64-linux-musl",
        library_triple="riscv64-linux-gnu.2.28",
    ),
)


@cache
def platforms() -> Registry[Platform]:
    """All platforms by name."""
    registry: Registry[Platform] = Registry("platform")
    for platform in _PLATFORMS:
        registry.add(platform.name, platform)
    return registry


def find_platform(name: str) -> Platform:
    """The platform of that name. Raises UnknownNameError."""
    return platforms()[name]


def platform_of(triple: str) -> Platform | None:
    """The platform that runs code for LLVM's ``triple``; None where there is none."""
    machine, _, rest = triple.partition("-")
    for platform in platforms().values():
        if platform.machine == canonical_machine(machine) and platform.system in rest:
            return platform
    return None
