"""How far stored or computed numbers are from those that they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Distortion", "distortion"]


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Signal and noise as sums of squares, the inner product and the other's norm, and the largest error."""

    signal: float
    noise: float
    product: float
    other: float
    largest: float

    @property
    def sqnr(self) -> float | None:
        """Signal to quantization noise in dB; None where there is no noise, 0 where there is no signal."""
        if self.noise == 0:
            return None
        return 10 * math.log10(self.signal / self.noise) if self.signal else 0.0

    @property
    def cosine(self) -> float:
        """Cosine similarity; 1 where both are zero."""
        if self.noise == 0:
            return 1.0
        norms = math.sqrt(self.signal) * math.sqrt(self.other)
        return min(1.0, self.product / norms) if norms else 0.0

    def __add__(self, more: Distortion) -> Distortion:
        """Of both sets of numbers together."""
        return Distortion(
            signal=self.signal + more.signal,
            noise=self.noise + more.noise,
            product=self.product + more.product,
            other=self.other + more.other,
            largest=max(self.largest, more.largest),
        )


def distortion(actual: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Distortion:
    """``actual`` against ``wanted``, of the same shape; sums are taken in float64."""
    a, w = actual.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    difference = a - w
    return Distortion(
        signal=float(w @ w),
        noise=float(difference @ difference),
        product=float(a @ w),
        other=float(a @ a),
        largest=float(np.abs(difference).max()) if difference.size else 0.0,
    )
