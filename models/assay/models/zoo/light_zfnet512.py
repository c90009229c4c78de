"""ZFNet-512."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-zfnet512",
    "ZFNet-512: a wider AlexNet, 1,000 classes.",
    file="light_zfnet512.onnx",
    sha256="6444bb58b98c3d14f551a3bdb83eea9e5db7e147790db3115c447e9c9a8338b0",
    input_name="gpu_0/data_0",
)
