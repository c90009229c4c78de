"""MiniLM in 8-bit integers."""

from __future__ import annotations

from dataclasses import replace

from assay.models.providers import Quantized
from assay.models.spec import Tolerance
from assay.models.zoo import minilm

__all__ = ["SPEC"]

SPEC = replace(
    minilm.SPEC,
    name="minilm-int8",
    description="all-MiniLM-L6-v2 sentence encoder, matrix products with weights quantized to int8 (QDQ).",
    provider=Quantized(source=minilm.SPEC, operators=("MatMul",), float_outputs=("MatMul",)),
    # A float32 that rounds to the other integer in one layer is a step of that layer's quantization, and
    # makes others round differently behind it: two right engines differ as much as each differs from float32,
    # by 0.043 at most on such inputs.
    tolerance=Tolerance(absolute=0.05, relative=0.0),
    tags=minilm.SPEC.tags | {"int8"},
)
