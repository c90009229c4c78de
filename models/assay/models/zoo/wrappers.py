"""Modules around models of the transformers library, so that ``forward`` takes and gives plain tensors."""

from __future__ import annotations

import torch

__all__ = ["Encoder", "LanguageModel", "Logits", "SentenceEncoder"]


class _Wrapper(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()


class Logits(_Wrapper):
    """An image classifier: ``pixel_values`` float32 [batch, 3, height, width] to logits [batch, classes]."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The logits alone."""
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class LanguageModel(_Wrapper):
    """``input_ids`` int64 [batch, sequence] to logits float32 [batch, sequence, vocabulary]."""

    positions: torch.Tensor

    def __init__(self, model: torch.nn.Module, length: int) -> None:
        super().__init__(model)
        self.register_buffer("positions", torch.arange(length)[None], persistent=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The logits of every position; each sees itself and those before it."""
        positions = self.positions[:, : input_ids.shape[1]]
        later = positions[:, None, None, :] > positions[:, None, :, None]
        mask = torch.where(later, torch.finfo(torch.float32).min, 0.0)
        output = self.model(input_ids=input_ids, attention_mask=mask, position_ids=positions, use_cache=False)
        logits: torch.Tensor = output.logits
        return logits


class Encoder(_Wrapper):
    """Tokens int64 [batch, sequence] to hidden states [batch, sequence, hidden] and [batch, hidden]."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden states, and the pooled first token."""
        output = self.model(
            input_ids=input_ids, attention_mask=_additive(attention_mask), token_type_ids=token_type_ids
        )
        return output.last_hidden_state, output.pooler_output


class SentenceEncoder(_Wrapper):
    """Tokens int64 [batch, sequence] to float32 [batch, hidden] of length 1."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The mean of the hidden states of all tokens but padding, scaled to length 1."""
        output = self.model(
            input_ids=input_ids,
            attention_mask=_additive(attention_mask),
            token_type_ids=torch.zeros_like(input_ids),
        )
        hidden = output.last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def _additive(mask: torch.Tensor) -> torch.Tensor:
    """What attention adds, [batch, 1, 1, sequence], from 1 for a token and 0 for padding, [batch, sequence].

    Given this form, the transformers library does not build the mask itself, out of a dozen operators.
    """
    return (1 - mask[:, None, None, :].to(torch.float32)) * torch.finfo(torch.float32).min
