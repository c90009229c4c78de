"""Bytes that schemes imply: for one weight, and for the weights of a model of 7 billion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.compile.schemes import Scheme

__all__ = ["LLAMA_2_7B", "SchemeSize", "scheme_sizes"]

# Llama-2-7B (Touvron et al. 2023): its matrices as (how many, rows, columns), the table of embeddings first.
_HIDDEN, _FFN, _LAYERS, _VOCABULARY = 4096, 11008, 32, 32000
LLAMA_2_7B = (
    (1, _VOCABULARY, _HIDDEN),
    (4 * _LAYERS, _HIDDEN, _HIDDEN),
    (2 * _LAYERS, _FFN, _HIDDEN),
    (_LAYERS, _HIDDEN, _FFN),
    (1, _VOCABULARY, _HIDDEN),
)
_NORMS = (2 * _LAYERS + 1) * _HIDDEN  # numbers of norms, float32 in every scheme


@dataclass(frozen=True, kw_only=True)
class SchemeSize:
    """What a scheme implies: ``bytes_per_weight`` of a large matrix, bytes of Llama-2-7B."""

    scheme: str
    bytes_per_weight: float
    seven_billion: int


def scheme_sizes(chosen: Sequence[Scheme]) -> list[SchemeSize]:
    """The sizes of each scheme, computed; embeddings are stored as the scheme stores tables."""
    return [
        SchemeSize(
            scheme=scheme.name,
            bytes_per_weight=scheme.stored_bytes((_HIDDEN, _HIDDEN)) / _HIDDEN**2,
            seven_billion=_bytes(scheme),
        )
        for scheme in chosen
    ]


def _bytes(scheme: Scheme) -> int:
    (count, *shape), *products = LLAMA_2_7B
    total = count * scheme.for_table().stored_bytes(shape) + 4 * _NORMS
    for count, rows, columns in products:
        total += count * scheme.stored_bytes((rows, columns))
    return total
