"""A decoder model in a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.decoders.spec import DecoderSpec
from assay.models.providers.pypi_package import PackageMember

if TYPE_CHECKING:
    from assay.models.decoders.config import DecoderConfig
    from assay.models.sources.gguf_model import GgufModel

__all__ = ["GgufFile"]


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """The GGUF file at ``source``, or the one in a package on PyPI.

    ``sha256`` is that of a file on disk, so that a specification says which content it is of.
    """

    source: Path | PackageMember
    sha256: str | None = None

    def onnx_path(self, folder: Path) -> Path:
        """Path of the canonical decoder below ``folder``.

        Raises ModelError for a file that is damaged or holds no decoder, CapacityError for one that memory
        cannot hold.
        """
        return self._open().export(folder)

    def path(self) -> Path:
        """Where the file lies."""
        return self.source.path() if isinstance(self.source, PackageMember) else self.source

    def decoder(self) -> DecoderSpec:
        """The sizes and the text side, as the file has them; its tokenizer lies in the user's cache.

        Raises ModelError, and TokenizerError for a vocabulary that is damaged or does not fit.
        """
        return self._open().decoder()

    def config(self) -> DecoderConfig:
        """The sizes and variations that the file tells; raises ModelError."""
        return self._open().config

    def _open(self) -> GgufModel:
        from assay.models.sources.gguf_model import open_gguf

        return open_gguf(self.path())
