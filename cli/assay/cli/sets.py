"""Sets of models that `assay bench --set` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from assay.errors import UnknownNameError

if TYPE_CHECKING:
    from assay.models.spec import ModelSpec

__all__ = ["SETS", "models_of"]

SETS: dict[str, Callable[[ModelSpec], bool]] = {
    "default": lambda spec: not spec.needs_torch and spec.decoder is None,
    "torch": lambda spec: spec.needs_torch and spec.decoder is None,
    "all": lambda spec: spec.decoder is None,
}


def models_of(name: str) -> list[str]:
    """Names of the models of a set: ``default`` needs no torch, ``torch`` does, ``all`` is both.

    Models that generate text are in none: ``assay bench llm`` measures those.

    Raises UnknownNameError.
    """
    from assay.models.registry import models

    if name not in SETS:
        raise UnknownNameError("set of models", name, SETS)
    return [spec.name for spec in models().values() if SETS[name](spec)]
