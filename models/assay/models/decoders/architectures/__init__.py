"""Decoder architectures: one file each, and one line here."""

from __future__ import annotations

from assay.models.decoders.architectures import gemma, gemma2, gpt2, llama, mistral, phi, phi3, qwen2
from assay.models.decoders.mapping import Architecture
from assay.registry import Registry

__all__ = ["ARCHITECTURES"]

ARCHITECTURES: Registry[Architecture] = Registry("decoder architecture")
for _architecture in (
    gpt2.ARCHITECTURE,
    llama.ARCHITECTURE,
    mistral.ARCHITECTURE,
    phi.ARCHITECTURE,
    phi3.ARCHITECTURE,
    gemma.ARCHITECTURE,
    gemma2.ARCHITECTURE,
    qwen2.ARCHITECTURE,
):
    ARCHITECTURES.add(_architecture.name, _architecture)
