"""ViT-S/16."""

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
    from transformers import ViTConfig, ViTForImageClassification

    from assay.models.zoo.torch_init import randomize
    from assay.models.zoo.wrappers import Logits

    config = ViTConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        image_size=224,
        patch_size=16,
        num_labels=1000,
        attn_implementation="eager",
    )
    return Logits(randomize(ViTForImageClassification(config)))


SPEC = ModelSpec(
    name="vit-s16",
    description="ViT-S/16 image classifier: a transformer over 197 patches, 1,000 classes.",
    provider=TorchModule(factory=_build, inputs=_INPUTS, outputs=("logits",)),
    inputs=_INPUTS,
    weights=Weights.RANDOM,
    licence="Apache-2.0",
    representative_inputs=image_input("pixel_values", 224),
    decode_file=decode_image("pixel_values", 224),
    needs_torch=True,
    tags=frozenset({"image", "transformer"}),
)
