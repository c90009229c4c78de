"""The pgo profile: a release build, rebuilt where a workload spends its time."""

from __future__ import annotations

from assay.compile.profiles.profile import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    name="pgo",
    description="release, and what a measured workload makes faster: sizes of its own, tiles, threads",
    fuse=True,
    guided=True,
)
