"""DenseNet-121."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-densenet121",
    "DenseNet-121: 58 concatenations of small convolutions, 1,000 logits.",
    file="light_densenet121.onnx",
    sha256="49ddb5712797d6164f1d864bedaad927de4f3909ad1b4ba390a92c2f8150e9f6",
    input_name="data_0",
    probabilities=False,
)
