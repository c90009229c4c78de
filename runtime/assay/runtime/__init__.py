"""The small runtime: opens artifacts and runs them, without the compiler.

::

    import assay.runtime

    model = assay.runtime.load("resnet18.assay")
    outputs = model.run({"input": array})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.runtime.artifact import Artifact, open_artifact
    from assay.runtime.generate.decoder import Decoder
    from assay.runtime.generate.loading import load_decoder
    from assay.runtime.session import Model, load

__all__ = ["Artifact", "Decoder", "Model", "load", "load_decoder", "open_artifact"]

_HOMES = {
    "Artifact": "assay.runtime.artifact",
    "Decoder": "assay.runtime.generate.decoder",
    "Model": "assay.runtime.session",
    "load": "assay.runtime.session",
    "load_decoder": "assay.runtime.generate.loading",
    "open_artifact": "assay.runtime.artifact",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then, so that importing this package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
