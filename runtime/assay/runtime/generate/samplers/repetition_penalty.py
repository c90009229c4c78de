"""Repetition penalty (Keskar et al., "CTRL: A Conditional Transformer Language Model", 2019, section 4.1)."""

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

__all__ = ["KIND", "RepetitionPenalty"]


@dataclass(frozen=True, kw_only=True)
class RepetitionPenalty:
    """Makes tokens of the prompt and of the answer less likely: divides logits above 0, multiplies others."""

    penalty: float

    def apply(self, candidates: Candidates, history: npt.NDArray[np.int64]) -> Candidates:
        """As many candidates. Comes first: it takes candidates for the whole vocabulary."""
        assert candidates.ids is None
        logits = candidates.logits.copy()
        # A token that is there twice gets the same value twice.
        seen = candidates.logits[history]
        penalty = np.float32(self.penalty)
        logits[history] = np.where(seen > 0, seen / penalty, seen * penalty)
        return Candidates(logits=logits)


def _make(value: float) -> Sampler:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"repetition_penalty must be above 0, not {value:g}.")
    return RepetitionPenalty(penalty=value)


KIND = SamplerKind(
    name="repetition_penalty",
    help="Above 1, tokens that were there before become less likely.",
    neutral=1.0,
    make=_make,
    draws=False,
)
