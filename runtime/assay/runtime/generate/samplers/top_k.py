"""Top-k sampling (Fan et al., "Hierarchical Neural Story Generation", ACL 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import UsageError
from assay.runtime.generate.samplers.candidates import Candidates
from assay.runtime.generate.samplers.sampler import Sampler, SamplerKind

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["KIND", "TopK"]


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Keeps the ``k`` most likely candidates; of equal ones, those of the lowest ids."""

    k: int

    def apply(self, candidates: Candidates, history: npt.NDArray[np.int64]) -> Candidates:
        """At most ``k`` candidates."""
        logits = candidates.logits
        if self.k >= len(logits):
            return candidates
        least = np.partition(logits, len(logits) - self.k)[len(logits) - self.k]
        above = np.flatnonzero(logits > least)
        equal = np.flatnonzero(logits == least)[: self.k - len(above)]
        return candidates.keep(np.sort(np.concatenate([above, equal])))


def _make(value: float) -> Sampler:
    if value < 1 or value != int(value):
        raise UsageError(f"top_k must be a whole number, 1 or above, or 0 for no limit, not {value:g}.")
    return TopK(k=int(value))


KIND = SamplerKind(
    name="top_k",
    help="Draws from the K most likely tokens; 0: from all.",
    neutral=0,
    make=_make,
    integer=True,
)
