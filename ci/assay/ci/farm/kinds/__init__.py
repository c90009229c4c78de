"""Kinds of jobs: one kind, one file, one line here, in the order in which they depend on each other."""

from __future__ import annotations

from functools import cache

from assay.ci.farm.kinds import bench, build, tune
from assay.ci.farm.kinds.kind import JobKind, NonsenseError, Result
from assay.registry import Registry

__all__ = ["JobKind", "NonsenseError", "Result", "kinds"]

_MODULES = (build, tune, bench)


@cache
def kinds() -> Registry[JobKind]:
    """All kinds by name."""
    registry: Registry[JobKind] = Registry("kind of job")
    for module in _MODULES:
        registry.add(module.KIND.name, module.KIND)
    return registry
