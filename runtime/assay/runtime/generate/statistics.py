"""What a generation took."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Statistics"]


@dataclass(kw_only=True)
class Statistics:
    """Counts of tokens, and seconds; of a batch, those of the passes that the text took part in.

    ``reused_tokens`` of the prompt were in the cache already. ``prefill_seconds`` are from the prompt's
    tokens to the first new one, ``decode_seconds`` are those of all others, sampling included and what the
    caller does between tokens not. ``first_token_seconds`` also counts the prompt's tokenization. ``passes``
    through the model gave the tokens after the first one. The time of a draft model, its prompt's too, is in
    ``decode_seconds``.
    """

    prompt_tokens: int
    reused_tokens: int = 0
    tokens: int = 0
    passes: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    tokenize_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def first_token_seconds(self) -> float:
        """Seconds from the prompt to the first token."""
        return self.tokenize_seconds + self.prefill_seconds

    @property
    def prefill_rate(self) -> float | None:
        """Tokens of the prompt that were computed, a second."""
        computed = self.prompt_tokens - self.reused_tokens
        return computed / self.prefill_seconds if self.prefill_seconds else None

    @property
    def decode_rate(self) -> float | None:
        """Tokens after the first one, a second; None where there is none."""
        return (self.tokens - 1) / self.decode_seconds if self.decode_seconds else None

    @property
    def acceptance_rate(self) -> float | None:
        """Share of the proposed tokens that the model took; None where nothing was proposed."""
        return self.accepted_tokens / self.proposed_tokens if self.proposed_tokens else None
