"""SqueezeNet 1.0."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-squeezenet",
    "SqueezeNet 1.0: squeeze and expand convolutions, 1,000 classes.",
    file="light_squeezenet.onnx",
    sha256="770b0f3c8623e18bf58b53754d710051b4c268248422142980a132bbe6dfe908",
    input_name="data_0",
)
