"""The models that come with Assay: one model, one file, and one line here."""

from __future__ import annotations

from assay.models.spec import ModelSpec
from assay.models.zoo import light_squeezenet, resnet18

__all__ = ["ZOO"]

ZOO: tuple[ModelSpec, ...] = (
    resnet18.SPEC,
    light_squeezenet.SPEC,
)
