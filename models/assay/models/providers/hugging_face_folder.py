"""A decoder model in a folder as transformers saves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.decoders.spec import DecoderSpec

if TYPE_CHECKING:
    from assay.models.decoders.config import DecoderConfig
    from assay.models.sources.hf_model import HfModel

__all__ = ["HuggingFaceFolder"]


@dataclass(frozen=True, kw_only=True)
class HuggingFaceFolder:
    """The folder at ``path``: ``config.json``, safetensors files and ``tokenizer.json``.

    ``sha256`` is that of its configuration and weights, so that a specification says which content it is of.
    """

    path: Path
    sha256: str | None = None

    def onnx_path(self, folder: Path) -> Path:
        """Path of the canonical decoder below ``folder``.

        Raises ModelError for files that are damaged or hold no decoder, CapacityError for a model that memory
        cannot hold.
        """
        return self._open().export(folder)

    def decoder(self) -> DecoderSpec:
        """The sizes and the text side, as the folder has them.

        Raises ModelError, and TokenizerError for a tokenizer that is damaged or does not fit.
        """
        return self._open().decoder()

    def config(self) -> DecoderConfig:
        """The sizes and variations that the folder tells; raises ModelError."""
        return self._open().config

    def _open(self) -> HfModel:
        from assay.models.sources.hf_model import open_hf

        return open_hf(self.path)
