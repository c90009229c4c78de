"""What a decoder (a language model that generates) is to the rest of Assay. Free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DecoderSpec"]


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """The sizes and the text side of a decoder model.

    ``window`` is how many tokens, itself included, a token attends to (None: all). ``tokenizer`` is a path to
    ``tokenizer.json``, ``chat_template`` the text of a Jinja template; None where the model has none.
    """

    architecture: str
    vocabulary: int
    context_length: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    add_bos: bool = False
    tokenizer: Path | None = None
    chat_template: str | None = None
