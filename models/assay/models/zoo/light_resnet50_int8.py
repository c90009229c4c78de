"""ResNet-50 of the onnx package in 8-bit integers."""

from __future__ import annotations

from dataclasses import replace

from assay.models.providers import Quantized
from assay.models.spec import Tolerance
from assay.models.zoo import light_resnet50

__all__ = ["SPEC"]

SPEC = replace(
    light_resnet50.SPEC,
    name="light-resnet50-int8",
    description="ResNet-50 as Caffe2 exported it, quantized to int8 (QDQ), 1,000 classes.",
    provider=Quantized(
        source=light_resnet50.SPEC,
        operators=("Conv", "Add", "Relu", "MaxPool", "AveragePool", "Reshape", "Gemm"),
    ),
    # The softmax reads logits in steps of 0.008. A sum that rounds to the other side of a tie, early on,
    # moves single logits by a few steps, and a probability by as many times 0.8%.
    tolerance=Tolerance(absolute=1e-6, relative=0.04),
    tags=light_resnet50.SPEC.tags | {"int8"},
)
