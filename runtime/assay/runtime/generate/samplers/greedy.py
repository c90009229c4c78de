"""The most likely token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assay.runtime.generate.samplers.candidates import Candidates

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Greedy"]


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Leaves the candidate of the highest logit; of several, that of the lowest id."""

    def apply(self, candidates: Candidates, history: npt.NDArray[np.int64]) -> Candidates:
        """One candidate."""
        return candidates.keep(np.array([np.argmax(candidates.logits)]))
