"""What the ResNets share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import ResNetConfig

__all__ = ["build_resnet"]


def build_resnet(config: ResNetConfig) -> torch.nn.Module:
    """A ResNet classifier with seeded random weights."""
    from transformers import ResNetForImageClassification

    from assay.models.zoo.torch_init import randomize
    from assay.models.zoo.wrappers import Logits

    model = ResNetForImageClassification(config)
    last = len(config.depths and model.resnet.encoder.stages[0].layers[0].layer) - 1
    # Kernels before a ReLU double the variance that the ReLU halves; the last normalisation of each block is
    # small, or activations would grow with the depth.
    gains = {f"layer.{last}.normalization": 0.5, "shortcut.normalization": 0.8, ".convolution": 2.0}
    return Logits(randomize(model, gains=gains))
