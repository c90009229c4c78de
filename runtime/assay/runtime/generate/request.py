"""One text that is being generated: what goes into the model next, and what its logits make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from assay.runtime.generate.history import TokenHistory
from assay.runtime.generate.paged_decoder import ROLLBACK, CachedSequence, LogitsOf, PagedDecoder
from assay.runtime.generate.samplers.chain import Chain
from assay.runtime.generate.speculation.acceptance import accept
from assay.runtime.generate.speculation.drafter import NOTHING, Drafter, Proposal
from assay.runtime.generate.statistics import Statistics

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FinishReason", "Limits", "Request", "advance"]


class FinishReason(StrEnum):
    """Why a text ended: its end token or a stop string, enough tokens, or no room in the context."""

    STOP = "stop"
    LENGTH = "length"
    CONTEXT = "context"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a text ends: at most ``new_tokens`` (None: the context's end), or one of the tokens ``ends``."""

    new_tokens: int | None
    ends: frozenset[int]


class Request:
    """The state of one text. The cache holds all of its tokens but the last, which is yet to go in."""

    def __init__(
        self,
        prompt: Sequence[int],
        sequence: CachedSequence,
        chain: Chain,
        generator: np.random.Generator,
        limits: Limits,
        *,
        drafter: Drafter | None = None,
        draft_tokens: int = 0,
    ) -> None:
        self.sequence = sequence
        self.history = TokenHistory(prompt)
        self.prompt_length = len(prompt)
        self.finish_reason: FinishReason | None = None
        self.statistics = Statistics(prompt_tokens=len(prompt))
        self._chain, self._generator, self._limits = chain, generator, limits
        self._drafter, self._draft_tokens = drafter, draft_tokens
        self._proposal: Proposal = NOTHING

    def begin(self) -> list[int]:
        """The tokens of the prompt that are not in the cache; at least the last, whose logits are needed."""
        prompt: list[int] = self.history.tokens.tolist()
        self.statistics.reused_tokens = self.sequence.keep_common(prompt[:-1])
        return prompt[len(self.sequence) :]

    def pending(self, most: int, context: int) -> list[int]:
        """The newest token and proposals for what follows it, ``most`` tokens at most."""
        if self._drafter is None:
            return [self.history.last]
        count = min(self._draft_tokens, most - 1, context - len(self.history), ROLLBACK)
        if self._limits.new_tokens is not None:
            count = min(count, self._limits.new_tokens - self._generated() - 1)
        self._proposal = NOTHING
        if count > 0:
            self._proposal = self._drafter.propose(self.history, count, self._chain, self._generator)
        self.statistics.proposed_tokens += len(self._proposal.tokens)
        return [self.history.last, *self._proposal.tokens]

    def take(self, logits: npt.NDArray[np.float32], context: int) -> list[int]:
        """New tokens from ``logits``, float32 ``[rows, vocabulary]``, of the tokens that went in last.

        Raises ArtifactError for logits that are not finite.
        """
        start = len(self.history)
        taken = accept(logits, self._proposal, self._chain, self.history, self._generator)
        self.statistics.accepted_tokens += taken
        self._proposal = NOTHING
        new: list[int] = self.history.tokens[start:].tolist()
        new = self._ended(new, context)
        self.history.truncate(start + len(new))
        self.sequence.truncate(min(len(self.sequence), len(self.history) - 1))
        self.statistics.tokens += len(new)
        return new

    def drop(self, count: int) -> None:
        """Forget the newest ``count`` tokens: the text ended before them."""
        self.history.truncate(len(self.history) - count)
        self.sequence.truncate(min(len(self.sequence), len(self.history) - 1))
        self.statistics.tokens -= count

    def close_drafter(self) -> None:
        """Give back what the drafter holds."""
        if self._drafter is not None:
            self._drafter.close()

    def close(self) -> None:
        """Give back all that is held."""
        self.close_drafter()
        self.sequence.close()

    def _generated(self) -> int:
        return len(self.history) - self.prompt_length

    def _ended(self, new: list[int], context: int) -> list[int]:
        """``new`` up to where the text ends, if it does; sets the reason."""
        most = self._limits.new_tokens
        before = len(self.history) - len(new)
        for index, token in enumerate(new):
            length = before + index + 1
            if token in self._limits.ends:
                self.finish_reason = FinishReason.STOP
            elif most is not None and length - self.prompt_length >= most:
                self.finish_reason = FinishReason.LENGTH
            elif length >= context:
                self.finish_reason = FinishReason.CONTEXT
            else:
                continue
            return new[: index + 1]
        return new


def advance(decoder: PagedDecoder, requests: Sequence[Request], *, begin: bool = False) -> list[list[int]]:
    """New tokens of each request, from one pass through the model; with ``begin``, from their prompts.

    Raises CapacityError where the cache is full.
    """
    start = perf_counter()
    if begin:
        parts = [(request.sequence, request.begin()) for request in requests]
    else:
        most = max(1, min(decoder.info.max_rows, decoder.info.max_tokens) // len(requests))
        parts = [(request.sequence, request.pending(most, decoder.context)) for request in requests]
    drafted = not begin and any(len(tokens) > 1 for _, tokens in parts)
    logits = decoder.forward(parts, LogitsOf.ALL if drafted else LogitsOf.LAST)
    results, row = [], 0
    for request, (_, tokens) in zip(requests, parts, strict=True):
        rows = len(tokens) if drafted else 1
        results.append(request.take(logits[row : row + rows], decoder.context))
        row += rows
    seconds = perf_counter() - start
    for request in requests:
        if begin:
            request.statistics.prefill_seconds += seconds
        else:
            request.statistics.decode_seconds += seconds
            request.statistics.passes += 1
    return results
