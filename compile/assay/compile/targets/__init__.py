"""Targets: one target, one file, one line in the registry."""

from __future__ import annotations

from functools import cache

from assay.compile.targets import x86_64_v3, x86_64_v4
from assay.compile.targets.native import native_target
from assay.compile.targets.target import Target, VectorUnit
from assay.registry import Registry

__all__ = ["Target", "VectorUnit", "find_target", "targets"]

# From plain to capable: `native` takes the last one that the machine can run.
_MODULES = (x86_64_v3, x86_64_v4)


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
