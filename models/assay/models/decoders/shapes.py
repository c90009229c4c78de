"""The shapes of a decoder's weights, from its configuration alone, and some well-known configurations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from assay.models.decoders.architectures import ARCHITECTURES
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.mapping import Naming, Role, Transform
from assay.models.decoders.rope import Rope

__all__ = ["KNOWN_SHAPES", "WeightShape", "weight_shapes"]


@dataclass(frozen=True, kw_only=True)
class WeightShape:
    """One weight, ``[outputs, inputs]``, ``[rows, columns]`` or ``[elements]``, and what it is."""

    role: Role
    shape: tuple[int, ...]


def weight_shapes(config: DecoderConfig) -> Iterator[WeightShape]:
    """Every weight of a model; of the optional ones, none."""
    for weight in ARCHITECTURES[config.architecture].weights:
        if weight.optional or not weight.condition(config):
            continue
        sources = weight.sources.get(Naming.HF) or next(iter(weight.sources.values()))
        for part in sources[0]:
            shape = tuple(config.size(size) for size in part.shape)
            if part.transform is Transform.TRANSPOSE:
                shape = shape[::-1]
            for _ in range(config.layers if weight.role.per_layer else 1):
                yield WeightShape(role=weight.role, shape=shape)


def _llama(*, kv_heads: int, ffn: int, context_length: int) -> DecoderConfig:
    return DecoderConfig(
        architecture="llama",
        vocabulary=32000,
        context_length=context_length,
        hidden=4096,
        layers=32,
        heads=32,
        kv_heads=kv_heads,
        head_dim=128,
        ffn=ffn,
        norm_epsilon=1e-5,
        rope=Rope(theta=10000.0, dim=128),
    )


KNOWN_SHAPES = {
    "llama-2-7b": _llama(kv_heads=32, ffn=11008, context_length=4096),
    "mistral-7b": _llama(kv_heads=8, ffn=14336, context_length=32768),
}
"""Configurations of models that Assay has no weights of, for estimates: as their config.json has them."""
