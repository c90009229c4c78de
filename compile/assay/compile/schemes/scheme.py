"""How weights are stored and multiplied."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Scheme"]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A quantization scheme. ``bits``: bits of one stored weight."""

    name: str
    description: str
    bits: int
