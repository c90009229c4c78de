"""Min-p sampling (Nguyen et al., "Turning Up the Heat: Min-p Sampling", ICLR 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import UsageError
from assay.runtime.generate.samplers.candidates import Candidates
from assay.runtime.generate.samplers.sampler import Sampler, SamplerKind

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["KIND", "MinP"]


@dataclass(frozen=True, kw_only=True)
class MinP:
    """Keeps candidates at least ``p`` times as likely as the most likely one."""

    p: float

    def apply(self, candidates: Candidates, history: npt.NDArray[np.int64]) -> Candidates:
        """At least one candidate."""
        logits = candidates.logits
        return candidates.keep(np.flatnonzero(logits >= logits.max() + np.float32(math.log(self.p))))


def _make(value: float) -> Sampler:
    if not 0 < value <= 1:
        raise UsageError(f"min_p must be above 0 and at most 1, or 0 for no limit, not {value:g}.")
    return MinP(p=value)


KIND = SamplerKind(
    name="min_p",
    help="Draws from the tokens that are at least P times as likely as the most likely one; 0: from all.",
    neutral=0.0,
    make=_make,
)
