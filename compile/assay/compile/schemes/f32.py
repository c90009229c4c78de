"""Weights as they are: float32."""

from __future__ import annotations

from assay.compile.schemes.scheme import Scheme

__all__ = ["SCHEME"]

SCHEME = Scheme(name="f32", description="float32 weights and arithmetic", bits=32)
