"""Weights in bfloat16, the upper half of a float32; arithmetic in float32."""

from __future__ import annotations

from assay.compile.schemes.scheme import FloatScheme

__all__ = ["SCHEME"]

SCHEME = FloatScheme(
    name="bf16",
    description="bfloat16 weights (8 bits of precision, the range of float32), float32 arithmetic",
    bits=16,
    dtype="bfloat16",
)
