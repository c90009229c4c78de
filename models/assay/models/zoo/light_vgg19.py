"""VGG-19."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-vgg19",
    "VGG-19: sixteen 3x3 convolutions and 120 million weights in its dense layers, 1,000 classes.",
    file="light_vgg19.onnx",
    sha256="8e547d732b3a3d66eeb8fa64a026adb994d3db552f0bbd52e436d06300d89afe",
    input_name="data_0",
)
