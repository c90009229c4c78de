"""The files of an artifact for text: the tokenizer and the chat template of a model that generates."""

from __future__ import annotations

from pathlib import Path

from assay.compile.decoders.interface import CHAT_TEMPLATE, TOKENIZER
from assay.models.decoders.spec import DecoderSpec

__all__ = ["text_digests", "text_files"]


def text_files(decoder: DecoderSpec | None) -> dict[str, bytes | Path]:
    """The files by their names in the artifact; none for a model without text."""
    files: dict[str, bytes | Path] = {}
    if decoder is not None and decoder.tokenizer is not None:
        files[TOKENIZER] = decoder.tokenizer
    if decoder is not None and decoder.chat_template is not None:
        files[CHAT_TEMPLATE] = decoder.chat_template.encode()
    return files


def text_digests(decoder: DecoderSpec | None) -> dict[str, str]:
    """SHA-256 of each file, hexadecimal. Raises OSError for a tokenizer that cannot be read."""
    import hashlib

    contents = {
        name: each if isinstance(each, bytes) else each.read_bytes()
        for name, each in text_files(decoder).items()
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
