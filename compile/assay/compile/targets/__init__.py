"""Targets: one target, one file, one line in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from assay.compile.targets import (
    aarch64_neon,
    x86_64_v2,
    x86_64_v3,
    x86_64_v4,
    x86_64_v4_amx,
    x86_64_v4_vnni,
)
from assay.compile.targets.native import native_target
from assay.compile.targets.target import Target, VectorUnit
from assay.errors import UsageError
from assay.registry import Registry

__all__ = ["Target", "VectorUnit", "find_target", "find_targets", "targets"]

# From plain to capable: `native` takes the last one that the machine can run.
_MODULES = (x86_64_v2, x86_64_v3, x86_64_v4, x86_64_v4_vnni, x86_64_v4_amx, aarch64_neon)


@cache
def targets() -> Registry[Target]:
    """All targets by name and micro-architecture alias, without ``native``."""
    registry: Registry[Target] = Registry("target")
    for module in _MODULES:
        registry.add(module.TARGET.name, module.TARGET, aliases=module.TARGET.aliases)
    return registry


def find_target(name: str) -> Target:
    """The target of that name or alias; ``native`` is detected. Raises UnknownNameError, CpuFeatureError."""
    if name == "native":
        return native_target(targets().values())
    return targets()[name]


def find_targets(names: str | Sequence[str]) -> tuple[Target, ...]:
    """The targets of several names, or of one string with commas, each once, from plain to capable.

    Raises UsageError where there is no name, and what ``find_target`` raises.
    """
    parts = names.split(",") if isinstance(names, str) else [p for name in names for p in name.split(",")]
    found = {target.name: target for target in (find_target(part.strip()) for part in parts if part.strip())}
    if not found:
        raise UsageError(
            "No target is named.", hint="`assay targets` lists them; `native` is this machine's."
        )
    order = list(targets())
    return tuple(sorted(found.values(), key=lambda target: order.index(target.name)))
