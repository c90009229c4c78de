"""A smaller model that proposes tokens (Leviathan, Kalman and Matias, ICML 2023)."""

from __future__ import annotations

import numpy as np

from assay.runtime.generate.history import TokenHistory
from assay.runtime.generate.paged_decoder import PagedDecoder
from assay.runtime.generate.samplers.candidates import Distribution
from assay.runtime.generate.samplers.chain import Chain
from assay.runtime.generate.speculation.drafter import Proposal

__all__ = ["ModelDrafter"]


class ModelDrafter:
    """Draws tokens from ``decoder``, with the samplers of the model that checks them."""

    def __init__(self, decoder: PagedDecoder) -> None:
        self._decoder = decoder
        self._sequence = decoder.sequence()
        self._agreed = 0  # cached tokens that are known to be those of the text

    def propose(
        self, history: TokenHistory, count: int, chain: Chain, generator: np.random.Generator
    ) -> Proposal:
        """Up to ``count`` tokens, as far as the draft's context goes."""
        count = min(count, self._decoder.context - len(history) + 1)
        if count <= 0:
            return Proposal(tokens=(), distributions=())
        self._go_back(history)
        length = len(history)
        tokens: list[int] = []
        distributions: list[Distribution] = []
        pending = history.tokens[len(self._sequence) :].tolist()
        try:
            while True:
                logits = self._decoder.forward([(self._sequence, pending)])[0]
                distributions.append(chain.distribution(logits, history.tokens))
                tokens.append(distributions[-1].draw(generator))
                if len(tokens) == count:
                    break
                history.append(tokens[-1])
                pending = tokens[-1:]
        finally:
            history.truncate(length)
        self._agreed = length
        return Proposal(tokens=tuple(tokens), distributions=tuple(distributions))

    def close(self) -> None:
        """Give the draft's cache back."""
        self._sequence.close()
        self._agreed = 0

    def _go_back(self, history: TokenHistory) -> None:
        """Forget cached tokens that did not become part of the text, and at least the last one of it."""
        text = history.tokens
        common = min(self._agreed, len(self._sequence))
        for token in self._sequence.tokens[common:]:
            if common == len(text) or token != text[common]:
                break
            common += 1
        self._sequence.truncate(min(common, len(text) - 1))
