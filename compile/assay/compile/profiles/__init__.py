"""Build profiles: one profile, one file, one line in the registry."""

from __future__ import annotations

from functools import cache

from assay.compile.profiles import debug, pgo, release
from assay.compile.profiles.profile import Profile
from assay.registry import Registry

__all__ = ["Profile", "profiles"]


@cache
def profiles() -> Registry[Profile]:
    """All build profiles by name."""
    registry: Registry[Profile] = Registry("profile")
    for module in (debug, release, pgo):
        registry.add(module.PROFILE.name, module.PROFILE)
    return registry
