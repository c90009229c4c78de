"""Prompt look-up: what followed the last few tokens when they were there before.

As in Saxena, "Prompt Lookup Decoding" (2023), and transformers' ``prompt_lookup_num_tokens``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assay.runtime.generate.history import TokenHistory
from assay.runtime.generate.samplers.candidates import Distribution
from assay.runtime.generate.samplers.chain import Chain
from assay.runtime.generate.speculation.drafter import NOTHING, Proposal

__all__ = ["NGramDrafter"]


@dataclass(frozen=True, kw_only=True)
class NGramDrafter:
    """Looks for the last ``longest`` tokens, then for fewer, to ``shortest``; the latest place counts."""

    longest: int = 4
    shortest: int = 2

    def propose(
        self, history: TokenHistory, count: int, chain: Chain, generator: np.random.Generator
    ) -> Proposal:
        """What followed the same tokens before, each token with certainty."""
        tokens = history.tokens
        for size in range(min(self.longest, len(tokens) - 1), self.shortest - 1, -1):
            # Places where the same tokens begin, other than the end itself.
            starts = len(tokens) - size
            same = tokens[:starts] == tokens[-size]
            for offset in range(1, size):
                same &= tokens[offset : starts + offset] == tokens[offset - size]
            places = np.flatnonzero(same)
            if len(places):
                after = int(places[-1]) + size
                found = tuple(map(int, tokens[after : after + count]))
                return Proposal(tokens=found, distributions=tuple(map(Distribution.certain, found)))
        return NOTHING

    def close(self) -> None:
        """Nothing is held."""
