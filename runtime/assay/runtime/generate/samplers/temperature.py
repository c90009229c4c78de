"""Temperature: a flatter or a more peaked distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import UsageError
from assay.runtime.generate.samplers.candidates import Candidates
from assay.runtime.generate.samplers.greedy import Greedy
from assay.runtime.generate.samplers.sampler import Sampler, SamplerKind

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["KIND", "Temperature"]


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Divides logits by ``value``, above 0."""

    value: float

    def apply(self, candidates: Candidates, history: npt.NDArray[np.int64]) -> Candidates:
        """As many candidates, the highest logit moved to 0 so that no value overflows."""
        shifted = candidates.logits - candidates.logits.max()
        # Beyond -1e4 a logit counts for nothing, at any temperature; the quotient may still be infinite.
        with np.errstate(over="ignore"):
            scaled = shifted / np.float32(max(self.value, float(np.finfo(np.float32).tiny)))
        return Candidates(logits=scaled, ids=candidates.ids)


def _make(value: float) -> Sampler:
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"temperature must be 0 or above, not {value:g}.")
    return Temperature(value=value) if value else Greedy()


KIND = SamplerKind(
    name="temperature",
    help="Divides logits: below 1 the likely tokens become likelier; 0 always takes the most likely one.",
    neutral=1.0,
    make=_make,
)
