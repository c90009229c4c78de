"""Quantization schemes: one scheme, one file, one line in the registry."""

from __future__ import annotations

from functools import cache

from assay.compile.schemes import f32
from assay.compile.schemes.scheme import Scheme
from assay.registry import Registry

__all__ = ["Scheme", "schemes"]


@cache
def schemes() -> Registry[Scheme]:
    """All schemes by name."""
    registry: Registry[Scheme] = Registry("scheme")
    for module in (f32,):
        registry.add(module.SCHEME.name, module.SCHEME)
    return registry
