"""Weights in 4 bits with a scale for each group, as GGUF's Q4_1; embeddings in 8 bits."""

from __future__ import annotations

from assay.compile.schemes.scheme import GroupScheme, SchemeOptions

__all__ = ["SCHEME"]

SCHEME = GroupScheme(
    name="int4",
    description="4-bit weights in groups of 32 with zero points, activations quantized to int8 as they come",
    bits=4,
    default=SchemeOptions(group=32, symmetric=False),
)
