"""Modules around models of the transformers library, so that ``forward`` takes and gives plain tensors."""

from __future__ import annotations

import torch

__all__ = ["Logits"]


class Logits(torch.nn.Module):
    """An image classifier: ``pixel_values`` float32 [batch, 3, height, width] to logits [batch, classes]."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The logits alone."""
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits
