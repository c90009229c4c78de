"""A decoder model on disk, of whichever format, that is opened and whose weights are not read yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.mapping import Naming
from assay.models.decoders.spec import DecoderSpec
from assay.models.decoders.weights import DecoderWeights
from assay.models.sources.capacity import check_memory

if TYPE_CHECKING:
    from assay.models.sources.text import TextSide

__all__ = ["SourceModel"]


@dataclass(frozen=True, kw_only=True)
class SourceModel(ABC):
    """A model whose headers are read and checked; ``naming`` is by which names it calls its weights."""

    naming: ClassVar[Naming]
    config: DecoderConfig
    weights: DecoderWeights

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the file or folder."""

    @abstractmethod
    def text_side(self) -> TextSide:
        """Tokenizer and special tokens; raises TokenizerError, and ModelError for damaged settings."""

    @abstractmethod
    def size(self) -> int:
        """Bytes of all weights as they are read."""

    def decoder(self) -> DecoderSpec:
        """The sizes and the text side; raises what ``text_side`` does."""
        side = self.text_side()
        return self.config.spec(
            bos_id=side.bos_id,
            eos_ids=side.eos_ids,
            add_bos=side.add_bos,
            tokenizer=side.tokenizer,
            chat_template=side.chat_template,
        )

    def export(self, folder: Path) -> Path:
        """Write the canonical decoder below ``folder``; its path.

        Raises CapacityError where this machine's memory cannot hold the weights, and what ``export_decoder``
        does.
        """
        from assay.models.decoders.export import export_decoder

        check_memory(repr(self.name), self.size())
        path = folder / "decoder.onnx"
        export_decoder(self.config, self.weights, path, naming=self.naming)
        return path
