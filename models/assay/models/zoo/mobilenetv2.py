"""MobileNetV2."""

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
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    from assay.models.zoo.torch_init import randomize
    from assay.models.zoo.wrappers import Logits

    # Symmetric padding, as in torchvision; TensorFlow's would add a Pad before every strided convolution.
    config = MobileNetV2Config(tf_padding=False, num_labels=1000)
    model = MobileNetV2ForImageClassification(config)
    # ReLU6 follows the first two convolutions of a block and halves the variance; nothing follows the third.
    gains = {"reduce_1x1.convolution": 1.0, ".convolution": 2.0, "reduce_1x1.normalization": 0.7}
    return Logits(randomize(model, gains=gains))


SPEC = ModelSpec(
    name="mobilenetv2",
    description="MobileNetV2 image classifier: depthwise convolutions in inverted residuals, 1,000 classes.",
    provider=TorchModule(factory=_build, inputs=_INPUTS, outputs=("logits",)),
    inputs=_INPUTS,
    weights=Weights.RANDOM,
    licence="Apache-2.0",
    representative_inputs=image_input("pixel_values", 224),
    decode_file=decode_image("pixel_values", 224),
    needs_torch=True,
    tags=frozenset({"image", "cnn"}),
)
