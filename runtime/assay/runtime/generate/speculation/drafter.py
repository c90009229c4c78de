"""What proposes tokens for the model to check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from assay.runtime.generate.history import TokenHistory
from assay.runtime.generate.samplers.candidates import Distribution
from assay.runtime.generate.samplers.chain import Chain

__all__ = ["NOTHING", "Drafter", "Proposal"]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Tokens that may come next, and for each the distribution that it was drawn from."""

    tokens: tuple[int, ...]
    distributions: tuple[Distribution, ...]


NOTHING = Proposal(tokens=(), distributions=())


class Drafter(Protocol):
    """Proposes tokens for one text, which between calls only grows."""

    def propose(
        self, history: TokenHistory, count: int, chain: Chain, generator: np.random.Generator
    ) -> Proposal:
        """At most ``count`` tokens that may follow ``history``; none is a proposal too."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...
