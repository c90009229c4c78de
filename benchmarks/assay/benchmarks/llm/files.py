"""The forms of a language model that are at hand for engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.benchmarks.llm.engine import LanguageFiles

if TYPE_CHECKING:
    from assay.models.spec import ModelSpec

__all__ = ["language_files"]


def language_files(spec: ModelSpec, artifact: Path, canonical: Path | None) -> LanguageFiles:
    """``artifact`` and ``canonical``, with the GGUF file or Hugging Face folder that ``spec`` came from."""
    from assay.models.providers import GgufFile, HuggingFaceFolder

    provider = spec.provider
    return LanguageFiles(
        name=spec.name,
        artifact=artifact,
        canonical=canonical,
        gguf=provider.path() if isinstance(provider, GgufFile) else None,
        folder=provider.path if isinstance(provider, HuggingFaceFolder) else None,
    )
