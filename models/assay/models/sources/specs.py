"""Specifications made from decoder models on disk that nobody registered."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.decoders.interface import decoder_inputs, representative_inputs
from assay.models.providers.gguf_file import GgufFile
from assay.models.providers.hugging_face_folder import HuggingFaceFolder
from assay.models.spec import ModelSpec, Provider, Weights

if TYPE_CHECKING:
    from assay.models.sources.model import SourceModel

__all__ = ["DECODER_TAGS", "spec_from_folder", "spec_from_gguf"]

DECODER_TAGS = frozenset({"text", "transformer", "language-model", "decoder"})


def spec_from_gguf(path: Path) -> ModelSpec:
    """The model of the GGUF file at ``path``, named after it; its weights are hashed and not yet read.

    Raises ModelError, and TokenizerError for a vocabulary that is damaged or does not fit.
    """
    from assay.models.sources.gguf_model import open_gguf

    model = open_gguf(path)
    return _spec(
        path.stem,
        f"The GGUF file {path.name}.",
        GgufFile(source=path.absolute(), sha256=_digest(path)),
        model,
        model.header.metadata.get("general.license"),
    )


def spec_from_folder(path: Path, name: str | None = None) -> ModelSpec:
    """The model of the Hugging Face folder at ``path``, named after it or ``name``; its weights are hashed.

    A folder with nothing but one GGUF file is that file. Raises ModelError, and TokenizerError for a
    tokenizer that is damaged or does not fit.
    """
    from assay.models.sources.hf_model import open_hf

    if not (path / "config.json").is_file() and len(files := sorted(path.glob("*.gguf"))) == 1:
        return spec_from_gguf(files[0])
    model = open_hf(path)
    digests = [_digest(file) for file in (path / "config.json", *model.folder.files)]
    return _spec(
        name or path.resolve().name,
        f"The Hugging Face folder {path.name}.",
        HuggingFaceFolder(path=path.absolute(), sha256=hashlib.sha256("".join(digests).encode()).hexdigest()),
        model,
    )


def _spec(
    name: str, description: str, provider: Provider, model: SourceModel, licence: object = None
) -> ModelSpec:
    # Weights of a file count as trained: nobody keeps random ones.
    return ModelSpec(
        name=name,
        description=description,
        provider=provider,
        inputs=decoder_inputs(model.config),
        weights=Weights.TRAINED,
        licence=licence if isinstance(licence, str) else "unknown",
        representative_inputs=representative_inputs(model.config),
        decoder=model.decoder(),
        tags=DECODER_TAGS,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
