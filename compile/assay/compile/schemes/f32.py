"""Weights and arithmetic in float32; what the model has in fewer bits is widened."""

from __future__ import annotations

from assay.compile.schemes.scheme import FloatScheme

__all__ = ["SCHEME"]

SCHEME = FloatScheme(name="f32", description="float32 weights and arithmetic", bits=32, dtype="float32")
