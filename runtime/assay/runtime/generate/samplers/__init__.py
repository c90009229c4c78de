"""Samplers, one a file, in the order in which they are applied: that of transformers' generation."""

from __future__ import annotations

from assay.registry import Registry
from assay.runtime.generate.samplers import min_p, repetition_penalty, temperature, top_k, top_p
from assay.runtime.generate.samplers.sampler import SamplerKind

__all__ = ["SAMPLERS"]

SAMPLERS: Registry[SamplerKind] = Registry("sampler")
for _kind in (repetition_penalty.KIND, temperature.KIND, top_k.KIND, top_p.KIND, min_p.KIND):
    SAMPLERS.add(_kind.name, _kind)
