"""The debug profile: every operator is a kernel of its own."""

from __future__ import annotations

from assay.compile.profiles.profile import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    name="debug", description="no fusion: one kernel for each operator", fuse=False, winograd=False
)
