"""The planned memory of an artifact in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.runtime.manifest import Manifest

__all__ = ["workspace_text"]


def workspace_text(manifest: Manifest) -> str:
    """The peak of the level that needs most, at the default sizes and, where it differs, at the largest."""
    planned = [level.workspace for level in manifest.levels if level.workspace is not None]
    if not planned:
        return "not known"
    most = max(planned, key=lambda workspace: workspace.maximum_bytes)
    text = f"{most.default_bytes / 1e6:.1f} MB"
    if most.maximum_bytes != most.default_bytes:
        text += f" at the default sizes, {most.maximum_bytes / 1e6:.1f} MB at the largest"
    return text
