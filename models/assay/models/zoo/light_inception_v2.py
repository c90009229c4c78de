"""Inception v2."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-inception-v2",
    "Inception v2: parallel convolutions with batch normalisation, 1,000 classes.",
    file="light_inception_v2.onnx",
    sha256="224d77d55b26559a959db627c3f417a623fbf3b3000d25f0939327aa935d933f",
    input_name="data_0",
)
