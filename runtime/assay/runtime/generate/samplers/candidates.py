"""What is left of the vocabulary while samplers narrow it, and the distribution that comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Candidates", "Distribution"]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Logits, float32 ``[n]``, of the tokens ``ids``, int64 ``[n]``, ascending; None: of all tokens.

    Arrays are never changed: a sampler makes others.
    """

    logits: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64] | None = None

    def keep(self, which: npt.NDArray[np.int64]) -> Candidates:
        """The candidates at the indices ``which``, ascending."""
        return Candidates(logits=self.logits[which], ids=which if self.ids is None else self.ids[which])

    def probabilities(self) -> npt.NDArray[np.float64]:
        """Softmax of the logits."""
        if len(self.logits) == 1:
            return np.ones(1)
        weights = np.exp(self.logits - self.logits.max()).astype(np.float64)
        return np.asarray(weights / weights.sum())

    def distribution(self) -> Distribution:
        """The probabilities with their tokens."""
        return Distribution(probabilities=self.probabilities(), ids=self.ids)


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Probabilities, float64 ``[n]``, of the tokens ``ids``, ascending (None: of all); others have none."""

    probabilities: npt.NDArray[np.float64]
    ids: npt.NDArray[np.int64] | None = None

    @staticmethod
    def certain(token: int) -> Distribution:
        """All of the probability on one token."""
        return Distribution(probabilities=np.ones(1), ids=np.array([token], np.int64))

    def of(self, token: int) -> float:
        """The probability of one token."""
        if self.ids is None:
            return float(self.probabilities[token])
        place = int(np.searchsorted(self.ids, token))
        if place == len(self.ids) or self.ids[place] != token:
            return 0.0
        return float(self.probabilities[place])

    def draw(self, generator: np.random.Generator) -> int:
        """One token, by inversion of the cumulative distribution."""
        if len(self.probabilities) == 1:
            place = 0
        else:
            sums = np.cumsum(self.probabilities)
            place = int(np.searchsorted(sums, generator.random() * sums[-1], side="right"))
            place = min(place, len(sums) - 1)
        return place if self.ids is None else int(self.ids[place])

    def residual(self, other: Distribution) -> Distribution:
        """The normalized positive part of this distribution minus ``other``.

        This one itself where nothing is left, which rounding alone can cause.
        """
        if other.ids is None:
            ids = np.arange(len(self.probabilities)) if self.ids is None else self.ids
            taken = other.probabilities[ids]
        else:
            taken = np.zeros(len(self.probabilities))
            place = other.ids if self.ids is None else np.searchsorted(self.ids, other.ids)
            inside = place < len(taken)
            if self.ids is not None:
                inside[inside] = self.ids[place[inside]] == other.ids[inside]
            taken[place[inside]] = other.probabilities[inside]
        left = np.maximum(self.probabilities - taken, 0)
        total = left.sum()
        return Distribution(probabilities=left / total, ids=self.ids) if total > 0 else self
