"""ResNet-50."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.models.images import decode_image, image_input
from assay.models.providers import TorchModule
from assay.models.spec import DType, InputSpec, ModelSpec, Weights

if TYPE_CHECKING:
    import torch

__all__ = ["SPEC"]

_INPUTS = (InputSpec(name="pixel_values", dtype=DType.FLOAT32, shape=(1, 3, 224, 224)),)


def _build() -> torch.nn.Module:
    from transformers import ResNetConfig

    from assay.models.zoo.resnet import build_resnet

    return build_resnet(
        ResNetConfig(
            depths=[3, 4, 6, 3],
            hidden_sizes=[256, 512, 1024, 2048],
            layer_type="bottleneck",
            num_labels=1000,
        )
    )


SPEC = ModelSpec(
    name="resnet50",
    description="ResNet-50 image classifier with bottleneck blocks, 1,000 classes.",
    provider=TorchModule(factory=_build, inputs=_INPUTS, outputs=("logits",)),
    inputs=_INPUTS,
    weights=Weights.RANDOM,
    licence="Apache-2.0",
    representative_inputs=image_input("pixel_values", 224),
    decode_file=decode_image("pixel_values", 224),
    needs_torch=True,
    tags=frozenset({"image", "cnn"}),
)
