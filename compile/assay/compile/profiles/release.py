"""The release profile: operators fused over the whole graph."""

from __future__ import annotations

from assay.compile.profiles.profile import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(name="release", description="operators fused over the whole graph", fuse=True)
