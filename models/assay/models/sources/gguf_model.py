"""A GGUF file as a decoder model: configuration, weights and text side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from assay.errors import ModelError
from assay.models.decoders.mapping import Naming
from assay.models.decoders.read_config import config_from_gguf
from assay.models.sources.gguf_header import GgufHeader, read_gguf_header
from assay.models.sources.gguf_tokenizer import gguf_text_side
from assay.models.sources.gguf_weights import GgufWeights
from assay.models.sources.model import SourceModel
from assay.models.sources.text import TextSide

__all__ = ["GgufModel", "open_gguf"]


@dataclass(frozen=True, kw_only=True)
class GgufModel(SourceModel):
    """A file whose header is read and checked, and whose weights are not yet."""

    naming: ClassVar[Naming] = Naming.GGUF
    header: GgufHeader
    weights: GgufWeights

    @property
    def name(self) -> str:
        """The file's name."""
        return self.header.path.name

    def text_side(self) -> TextSide:
        """What the header says; raises TokenizerError."""
        return gguf_text_side(self.header.metadata, self.config.vocabulary, repr(self.name))

    def size(self) -> int:
        """Bytes of all weights in their canonical form."""
        return sum(self.weights.canonical_bytes(name) for name in self.weights.names())


def open_gguf(path: Path) -> GgufModel:
    """The model in the GGUF file at ``path``.

    Raises ModelError for a file that is damaged, is one of several parts, has types that are not read, or is
    of an architecture that is not known.
    """
    header = read_gguf_header(path)
    parts = header.metadata.get("split.count", 1)
    if parts != 1:
        raise ModelError(
            f"The GGUF file {str(path)!r} is one of {parts} parts of a model, which are not read one by one.",
            hint="Join them with llama.cpp's llama-gguf-split --merge.",
        )
    weights = GgufWeights(header)
    return GgufModel(
        header=header, config=config_from_gguf(header.metadata, weights.names()), weights=weights
    )
