"""AlexNet."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-alexnet",
    "AlexNet: five convolutions with local response normalisation, 1,000 classes.",
    file="light_bvlc_alexnet.onnx",
    sha256="2afa78cef5a88aed9d6e3d63fb92bd330c9177ac150d19189c6b3e7204ba0212",
    input_name="data_0",
)
