"""Files of a model's folder may be links, but to nothing outside it."""

from __future__ import annotations

from pathlib import Path

from assay.errors import ModelError

__all__ = ["inside"]


def inside(folder: Path, path: Path) -> Path:
    """``path``, a file of ``folder``; it may not exist.

    In a hub's layout, snapshots/REVISION/FILE may link to ../../blobs/DIGEST. Raises ModelError for a link
    that leads anywhere else: what it names could end up in an artifact.
    """
    real = folder.resolve()
    roots = [real]
    if real.parent.name == "snapshots" and real.parent.parent.name.startswith("models--"):
        roots.append(real.parent.parent / "blobs")
    if not any(path.resolve().is_relative_to(root) for root in roots):
        raise ModelError(
            f"The file {path.name!r} of {str(folder)!r} is a link that leads out of the model's folder."
        )
    return path
