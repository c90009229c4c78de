"""Models in a local hub directory, by the name that they have on the Hugging Face Hub; no network.

The layout is that of the ``huggingface_hub`` cache:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from assay.errors import ModelError

__all__ = ["hub_directory", "hub_snapshot", "is_hub_name"]

# As the Hub has it: letters, digits, and single dots, dashes and underscores inside.
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_hub_name(name: str) -> bool:
    """Whether ``name`` has the form ORGANIZATION/MODEL."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def hub_directory(environment: Mapping[str, str] | None = None) -> Path:
    """The local hub: ``HF_HUB_CACHE``, ``HF_HOME``/hub, or ~/.cache/huggingface/hub."""
    variables = os.environ if environment is None else environment
    if cache := variables.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := variables.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(variables.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def hub_snapshot(name: str, hub: Path | None = None) -> Path | None:
    """The folder of the model ``name`` in ``hub`` (the local one); None where the hub has no such model.

    It is the snapshot that ``refs/main`` names, or the only one. Raises ModelError for a directory in which
    there is none.
    """
    if not is_hub_name(name):
        return None
    model = (hub or hub_directory()) / f"models--{name.replace('/', '--')}"
    if not model.is_dir():
        return None
    snapshots = model / "snapshots"
    reference = model / "refs" / "main"
    try:
        if reference.is_file():
            revision = reference.read_text(encoding="utf-8").strip()[:200]
            if not _REVISION.fullmatch(revision) or not (snapshots / revision).is_dir():
                raise ModelError(
                    f"The hub directory {str(model)!r} lacks the snapshot {revision!r} of refs/main."
                )
            return snapshots / revision
        found = sorted(path for path in snapshots.iterdir() if path.is_dir()) if snapshots.is_dir() else []
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The hub directory {str(model)!r} cannot be read: {error}.") from error
    if len(found) != 1:
        raise ModelError(
            f"The hub directory {str(model)!r} has {len(found)} snapshots and no refs/main to choose one."
        )
    return found[0]
