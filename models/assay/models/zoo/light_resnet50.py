"""ResNet-50 as the onnx package has it."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-resnet50",
    "ResNet-50 as Caffe2 exported it, 1,000 classes.",
    file="light_resnet50.onnx",
    sha256="05e77a5c9c9ce0913f549a50d6ebaced5e0ff6817b61e09bae26e4c5bd9055e4",
    input_name="gpu_0/data_0",
)
