"""Weights in 8 bits with a scale for each group, as GGUF's Q8_0; activations in int8."""

from __future__ import annotations

from assay.compile.schemes.scheme import GroupScheme, SchemeOptions

__all__ = ["SCHEME"]

SCHEME = GroupScheme(
    name="int8",
    description="8-bit weights in groups of 32, symmetric, activations quantized to int8 as they come",
    bits=8,
    default=SchemeOptions(group=32, symmetric=True),
)
