"""The prompt that both sides of a language model are measured with."""

from __future__ import annotations

from pathlib import Path

from assay.benchmarks.llm.harness import make_prompts
from assay.ci.gate.report import Phase
from assay.ci.gate.signals import Identity

__all__ = ["PHASES", "prompt_tokens", "write_prompt"]

PHASES: tuple[Phase, ...] = ("prefill", "decode")
_TOKENS = 64


def prompt_tokens(*sides: Identity) -> int:
    """How many tokens the prompt has: 64, or half of what the model can hold."""
    lengths = [side.decoder.context_length // 2 for side in sides if side.decoder is not None]
    return min(_TOKENS, *lengths)


def write_prompt(path: Path, *sides: Identity, seed: int) -> Path:
    """Write token ids drawn from ``seed`` to ``path``, an .npz file, as the array ``prompt``."""
    import numpy as np

    vocabulary = min(side.decoder.vocabulary for side in sides if side.decoder is not None)
    (prompt,) = make_prompts(1, prompt_tokens(*sides), vocabulary, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, prompt=np.asarray(prompt, np.int64))
    return path
