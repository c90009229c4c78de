"""How hard a build works."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Profile"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A build profile.

    ``fuse``: whether operators are fused across the graph. ``winograd``: whether convolutions may be computed
    with fewer multiplications and transformed, larger filters. ``guided``: whether what was measured on a
    workload guides the build.
    """

    name: str
    description: str
    fuse: bool
    winograd: bool = True
    guided: bool = False
