"""Where compiled code runs: one machine with one operating system a platform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from assay.errors import UsageError
from assay.registry import Registry
from assay.runtime.cpu import canonical_machine

if TYPE_CHECKING:
    from assay.compile.targets import AnyTarget, Target

__all__ = ["Platform", "find_platform", "for_platform", "platform_of", "platforms"]


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A platform: ``machine`` and ``system`` as the triples of targets have them.

    ``triple`` is LLVM's, of kernels; ``program_triple`` and ``library_triple`` are zig's, of the native
    runtime as a program and as a shared library; ``library_suffix`` and ``program_suffix`` are how the system
    ends their names. ``emulator``: the program that runs others of this system on another one.
    """

    name: str
    machine: str
    system: str
    triple: str
    program_triple: str
    library_triple: str
    program_suffix: str = ""
    library_prefix: str = "lib"
    library_suffix: str = ".so"
    emulator: tuple[str, ...] = ()

    @property
    def program_name(self) -> str:
        """The file of the program."""
        return f"assay-run{self.program_suffix}"

    @property
    def library_name(self) -> str:
        """The file of the shared library."""
        return f"{self.library_prefix}assay_runtime{self.library_suffix}"


def _linux(machine: str) -> Platform:
    # A program with musl's libc inside runs on every Linux; glibc 2.28 is that of Debian 10 and RHEL 8.
    return Platform(
        name=f"linux-{machine}",
        machine=machine,
        system="linux",
        triple=f"{machine}-linux-gnu",
        program_triple=f"{machine}-linux-musl",
        library_triple=f"{machine}-linux-gnu.2.28",
    )


def _macos(machine: str) -> Platform:
    # macOS 11 is the first for Apple's own CPUs.
    return Platform(
        name=f"macos-{machine}",
        machine=machine,
        system="macos",
        triple=f"{machine}-apple-macosx11.0.0",
        program_triple=f"{machine}-macos.11.0",
        library_triple=f"{machine}-macos.11.0",
        library_suffix=".dylib",
    )


def _windows(machine: str, emulator: tuple[str, ...] = ()) -> Platform:
    # Universal C runtime, as every Windows 10 has it.
    return Platform(
        name=f"windows-{machine}",
        machine=machine,
        system="windows",
        triple=f"{machine}-w64-windows-gnu",
        program_triple=f"{machine}-windows-gnu",
        library_triple=f"{machine}-windows-gnu",
        program_suffix=".exe",
        library_prefix="",
        library_suffix=".dll",
        emulator=emulator,
    )


_PLATFORMS = (
    _linux("x86_64"),
    _linux("aarch64"),
    _linux("riscv64"),
    _macos("aarch64"),
    _macos("x86_64"),
    _windows("x86_64", emulator=("wine64",)),
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


def for_platform(target: AnyTarget, platform: Platform) -> Target:
    """``target`` with code for ``platform`` that a launch plan calls, so that a bundle can hold it.

    Raises UsageError where the target is for another machine, for a GPU or for WebAssembly.
    """
    from assay.compile.targets.target import Launcher, Target

    machine = canonical_machine(target.triple.partition("-")[0]) if isinstance(target, Target) else None
    if not isinstance(target, Target) or machine != platform.machine:
        raise UsageError(
            f"{target.name} is not for {platform.name}.",
            hint=f"Name a target of {platform.machine}: `assay targets` lists them.",
        )
    if platform.system == "linux":
        return replace(target, triple=platform.triple, launcher=Launcher.PLAN)
    return replace(target, triple=platform.triple, launcher=Launcher.PLAN, emulator=platform.emulator)
