"""The models that come with Assay: one model, one file, and one line here."""

from __future__ import annotations

from assay.models.spec import ModelSpec
from assay.models.zoo import (
    resnet18,
    light_alexnet,
    light_densenet121,
    light_inception_v1,
    light_inception_v2,
    light_resnet50,
    light_shufflenet,
    light_squeezenet,
    light_vgg19,
    light_zfnet512,
)

__all__ = ["ZOO"]

ZOO: tuple[ModelSpec, ...] = (
    resnet18.SPEC,
    light_alexnet.SPEC,
    light_densenet121.SPEC,
    light_inception_v1.SPEC,
    light_inception_v2.SPEC,
    light_resnet50.SPEC,
    light_shufflenet.SPEC,
    light_squeezenet.SPEC,
    light_vgg19.SPEC,
    light_zfnet512.SPEC,
)
