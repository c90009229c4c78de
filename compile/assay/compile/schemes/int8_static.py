"""Weights and activations in 8 bits, with ranges of activations that calibration finds once (QDQ)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from assay.compile.schemes.scheme import Scheme, SchemeOptions

if TYPE_CHECKING:
    from assay.compile.quantize.sites import Weight

__all__ = ["SCHEME", "Calibrator", "StaticScheme"]


class Calibrator(StrEnum):
    """How the range of an activation follows from what calibration saw of it."""

    MINMAX = "minmax"  # from the least to the largest value
    PERCENTILE = "percentile"  # what holds 99.999% of the values
    ENTROPY = "entropy"  # the range of the least Kullback-Leibler divergence


@dataclass(frozen=True, kw_only=True)
class StaticScheme(Scheme):
    """QDQ: one scale a channel of a weight, one scale and zero point an activation."""

    calibrator: Calibrator = Calibrator.MINMAX

    @property
    def whole_graph(self) -> bool:
        """Activations are of the graph, not of a weight."""
        return True

    @property
    def needs_samples(self) -> bool:
        """The ranges of activations come from samples."""
        return True

    @property
    def rounds_activations(self) -> bool:
        """To uint8."""
        return True

    def option_words(self) -> dict[str, SchemeOptions]:
        """The calibrators."""
        return {each.value: SchemeOptions(calibrator=each.value) for each in Calibrator}

    def with_options(self, options: SchemeOptions) -> Self:
        """The scheme with another calibrator."""
        chosen = Calibrator(options.calibrator or Calibrator.MINMAX)
        base = SCHEME.name
        return replace(
            self,
            name=base if chosen is Calibrator.MINMAX else f"{base}-{chosen.value}",
            calibrator=chosen,
        )

    def misfit(self, weight: Weight) -> str | None:
        """It stores no weight by itself."""
        return "it is a scheme for whole models"

    def stored_bytes(self, shape: Sequence[int]) -> int:
        """Codes, and a float32 scale for each row of a weight."""
        return math.prod(shape) + 4 * shape[0]


SCHEME = StaticScheme(
    name="int8-static",
    description="8-bit weights, one scale a channel, 8-bit activations in ranges found by calibration",
    bits=8,
)
