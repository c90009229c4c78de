"""Our own engine: the artifact on Assay's runtime."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.benchmarks.llm.engine import LanguageFiles, LanguageSession
from assay.benchmarks.peers.assay_runtime import artifact_bytes

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.generate.decoder import Decoder

__all__ = ["AssayDecoder"]


@dataclass(frozen=True, kw_only=True)
class AssayDecoder:
    """Loads the artifact as users do, digests checked, and calls it without the tokenizer."""

    name: str = "assay"
    note: str = "the artifact, loaded with digests checked"

    def unavailable(self, files: LanguageFiles) -> str | None:
        """Always None: without an artifact there is nothing to compare."""
        return None

    def version(self) -> str:
        """Assay's version."""
        return importlib.metadata.version("assay")

    def load(self, files: LanguageFiles, threads: int, context: int, sequences: int) -> LanguageSession:
        """The artifact with a cache of its own dtype."""
        from assay.runtime import load_decoder

        decoder = load_decoder(files.artifact, threads=threads, context=context, sequences=sequences)
        return _Session(decoder, sequences)

    def size_bytes(self, files: LanguageFiles) -> int | None:
        """All files of the artifact."""
        return artifact_bytes(files.artifact)


class _Session:
    def __init__(self, decoder: Decoder, sequences: int) -> None:
        self._decoder = decoder.paged
        self._sequences = [decoder.sequence() for _ in range(sequences)]

    def advance(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        return self._decoder.forward(list(zip(self._sequences, tokens, strict=True)))

    def reset(self) -> None:
        for sequence in self._sequences:
            sequence.close()
