"""A Hugging Face folder as a decoder model: configuration, weights and text side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.read_config import config_from_hf
from assay.models.decoders.spec import DecoderSpec
from assay.models.sources.capacity import check_memory
from assay.models.sources.hf_folder import HfFolder, open_folder
from assay.models.sources.hf_text import hf_text_side
from assay.models.sources.safetensors_weights import SafetensorsWeights

__all__ = ["HfModel", "open_hf"]


@dataclass(frozen=True, kw_only=True)
class HfModel:
    """A folder whose configuration and headers are read and checked, and whose weights are not yet read."""

    folder: HfFolder
    config: DecoderConfig
    weights: SafetensorsWeights

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.path.name

    def decoder(self) -> DecoderSpec:
        """The sizes and the text side; raises TokenizerError, and ModelError for damaged settings."""
        side = hf_text_side(self.folder.path, self.folder.config, self.config.vocabulary)
        return self.config.spec(
            bos_id=side.bos_id,
            eos_ids=side.eos_ids,
            add_bos=side.add_bos,
            tokenizer=side.tokenizer,
            chat_template=side.chat_template,
        )

    def check_memory(self) -> None:
        """Raises CapacityError where this machine's memory cannot hold the weights."""
        check_memory(repr(self.name), sum(self.weights.size(name) for name in self.weights.names()))


def open_hf(path: Path) -> HfModel:
    """The model in the folder ``path``.

    Raises ModelError for files that are damaged, missing or outside the folder, and for an architecture that
    is not known.
    """
    folder = open_folder(path)
    config = config_from_hf(folder.config)
    return HfModel(folder=folder, config=config, weights=folder.weights())
