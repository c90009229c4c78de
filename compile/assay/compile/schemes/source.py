"""Weights as the model has them, whether in floating point or quantized already."""

from __future__ import annotations

from assay.compile.schemes.scheme import SourceScheme

__all__ = ["SCHEME"]

SCHEME = SourceScheme(name="source", description="weights as the model has them", bits=32)
