"""Inception v1 (GoogLeNet)."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-inception-v1",
    "Inception v1 (GoogLeNet): parallel convolutions of several sizes, 1,000 classes.",
    file="light_inception_v1.onnx",
    sha256="bb7a0e6c370c709f5615eeef961b43628de13d0009ae4d6f4bfb0d5aea5d8270",
    input_name="data_0",
)
