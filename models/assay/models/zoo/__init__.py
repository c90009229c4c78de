"""The models that come with Assay: one model, one file, and one line here."""

from __future__ import annotations

from assay.models.spec import ModelSpec
from assay.models.zoo import (
    basic_pitch,
    bert_base,
    gpt2,
    gpt2_lm,
    light_alexnet,
    light_densenet121,
    light_inception_v1,
    light_inception_v2,
    light_resnet50,
    light_resnet50_int8,
    light_shufflenet,
    light_squeezenet,
    light_vgg19,
    light_zfnet512,
    minilm,
    minilm_int8,
    mobilenetv2,
    resnet18,
    resnet50,
    silero_vad,
    smollm2_135m,
    vit_s16,
)

__all__ = ["ZOO"]

ZOO: tuple[ModelSpec, ...] = (
    resnet18.SPEC,
    resnet50.SPEC,
    mobilenetv2.SPEC,
    vit_s16.SPEC,
    bert_base.SPEC,
    gpt2.SPEC,
    minilm.SPEC,
    minilm_int8.SPEC,
    silero_vad.SPEC,
    basic_pitch.SPEC,
    light_alexnet.SPEC,
    light_densenet121.SPEC,
    light_inception_v1.SPEC,
    light_inception_v2.SPEC,
    light_resnet50.SPEC,
    light_resnet50_int8.SPEC,
    light_shufflenet.SPEC,
    light_squeezenet.SPEC,
    light_vgg19.SPEC,
    light_zfnet512.SPEC,
    smollm2_135m.SPEC,
    gpt2_lm.SPEC,
)
