"""Weights in IEEE 754 binary16, arithmetic in float32."""

from __future__ import annotations

from assay.compile.schemes.scheme import FloatScheme

__all__ = ["SCHEME"]

SCHEME = FloatScheme(
    name="f16",
    description="float16 weights (11 bits of precision), float32 arithmetic",
    bits=16,
    dtype="float16",
)
