"""Which of the proposed tokens the model takes, so that what comes out has its own distribution.

The algorithm is that of Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative
Decoding" (ICML 2023), and of Chen et al., "Accelerating Large Language Model Decoding with Speculative
Sampling" (2023): a token that was drawn from q is taken with probability min(1, p/q), and the first that is
not is replaced by a draw from what p has more than q.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from assay.runtime.generate.history import TokenHistory
from assay.runtime.generate.samplers.chain import Chain
from assay.runtime.generate.speculation.drafter import Proposal

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["accept"]


def accept(
    logits: npt.NDArray[np.float32],
    proposal: Proposal,
    chain: Chain,
    history: TokenHistory,
    generator: np.random.Generator,
) -> int:
    """Append to ``history`` the proposed tokens that are taken, and one more; gives how many were taken.

    ``logits`` are float32 ``[proposed + 1, vocabulary]``: after ``history``, and after each proposed token.
    """
    for place, (token, drawn_from) in enumerate(zip(proposal.tokens, proposal.distributions, strict=True)):
        wanted = chain.distribution(logits[place], history.tokens)
        if generator.random() * drawn_from.of(token) < wanted.of(token):
            history.append(token)
            continue
        history.append(wanted.residual(drawn_from).draw(generator))
        return place
    history.append(chain.draw(logits[-1], history.tokens, generator))
    return len(proposal.tokens)
