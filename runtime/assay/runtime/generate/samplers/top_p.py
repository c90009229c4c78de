"""Top-p or nucleus sampling (Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import UsageError
from assay.runtime.generate.samplers.candidates import Candidates
from assay.runtime.generate.samplers.sampler import Sampler, SamplerKind

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["KIND", "TopP"]

_FIRST_TRY = 64  # candidates that are sorted at first: the nucleus is small, and the vocabulary large


@dataclass(frozen=True, kw_only=True)
class TopP:
    """Keeps the most likely candidates, as few as have a probability of ``p`` together; never none."""

    p: float

    def apply(self, candidates: Candidates, history: npt.NDArray[np.int64]) -> Candidates:
        """Candidates of the nucleus; of equal ones at its border, those of the lowest ids."""
        probabilities = candidates.probabilities()
        count = min(_FIRST_TRY, len(probabilities))
        while True:
            likely = _most_likely(probabilities, count)
            sums = np.cumsum(probabilities[likely])
            if sums[-1] >= self.p or count == len(probabilities):
                break
            count = min(8 * count, len(probabilities))
        needed = min(int(np.searchsorted(sums, self.p)) + 1, count)
        return candidates.keep(np.sort(likely[:needed]))


def _most_likely(probabilities: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """At least ``count`` indices of the highest probabilities, highest first, equal ones by index."""
    if count == len(probabilities):
        return np.argsort(-probabilities, kind="stable")
    least = np.partition(probabilities, len(probabilities) - count)[len(probabilities) - count]
    chosen = np.flatnonzero(probabilities >= least)
    return chosen[np.argsort(-probabilities[chosen], kind="stable")]


def _make(value: float) -> Sampler:
    if not 0 < value <= 1:
        raise UsageError(f"top_p must be above 0 and at most 1, not {value:g}.")
    return TopP(p=value)


KIND = SamplerKind(
    name="top_p",
    help="Draws from the most likely tokens that have a probability of P together; 1: from all.",
    neutral=1.0,
    make=_make,
)
