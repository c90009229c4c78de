"""A Hugging Face folder as a decoder model: configuration, weights and text side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from assay.models.decoders.mapping import Naming
from assay.models.decoders.read_config import config_from_hf
from assay.models.sources.hf_folder import HfFolder, open_folder
from assay.models.sources.hf_text import hf_text_side
from assay.models.sources.model import SourceModel
from assay.models.sources.safetensors_weights import SafetensorsWeights
from assay.models.sources.text import TextSide

__all__ = ["HfModel", "open_hf"]


@dataclass(frozen=True, kw_only=True)
class HfModel(SourceModel):
    """A folder whose configuration and headers are read and checked, and whose weights are not yet read."""

    naming: ClassVar[Naming] = Naming.HF
    folder: HfFolder
    weights: SafetensorsWeights

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.path.name

    def text_side(self) -> TextSide:
        """What the folder's files say; raises TokenizerError, and ModelError for damaged settings."""
        return hf_text_side(self.folder.path, self.folder.config, self.config.vocabulary)

    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(self.weights.size(name) for name in self.weights.names())


def open_hf(path: Path) -> HfModel:
    """The model in the folder ``path``.

    Raises ModelError for files that are damaged, missing or outside the folder, and for an architecture that
    is not known.
    """
    folder = open_folder(path)
    config = config_from_hf(folder.config)
    return HfModel(folder=folder, config=config, weights=folder.weights())
