"""ShuffleNet v1."""

from __future__ import annotations

from assay.models.zoo.light import light_cnn

__all__ = ["SPEC"]

SPEC = light_cnn(
    "light-shufflenet",
    "ShuffleNet v1: grouped and depthwise convolutions with channel shuffles, 1,000 classes.",
    file="light_shufflenet.onnx",
    sha256="c6f406d62be36d6b4572542c0950a2abd59f56237068793290680bba89fbafe5",
    input_name="gpu_0/data_0",
    # Its three strided units concatenate instead of adding, and let activations grow to about 6.
    final_gain=0.1,
)
