"""What an engine must offer to be measured on a language model. Free of heavy imports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["LanguageEngine", "LanguageFiles", "LanguageSession"]


@dataclass(frozen=True, kw_only=True)
class LanguageFiles:
    """The forms of one language model that engines load.

    ``name``: as registered. ``artifact``: ours. ``canonical``: its canonical ONNX, None where it is not at
    hand. ``gguf`` and ``folder``: the GGUF file, or the Hugging Face folder, that the model came from; None
    where it came from elsewhere.
    """

    name: str
    artifact: Path
    canonical: Path | None
    gguf: Path | None
    folder: Path | None


class LanguageSession(Protocol):
    """A loaded language model with an empty cache for a number of sequences."""

    def advance(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        """Append ``tokens[s]`` to sequence ``s``: equally many to all, at least one.

        Gives float32 logits ``[sequences, vocabulary]`` of the last token of each.
        """
        ...

    def reset(self) -> None:
        """Forget all sequences."""
        ...


class LanguageEngine(Protocol):
    """One engine."""

    @property
    def name(self) -> str:
        """The name by which it is asked for and recorded."""
        ...

    @property
    def note(self) -> str:
        """What exactly it runs, for readers of its figures."""
        ...

    def unavailable(self, files: LanguageFiles) -> str | None:
        """Why this engine cannot run the model here, or None. Imports nothing heavy."""
        ...

    def version(self) -> str:
        """The version of the engine that is installed."""
        ...

    def load(self, files: LanguageFiles, threads: int, context: int, sequences: int) -> LanguageSession:
        """Import the engine and load the model, set to run on ``threads`` threads.

        Its cache has room for ``sequences`` sequences of ``context`` tokens each.
        """
        ...

    def size_bytes(self, files: LanguageFiles) -> int | None:
        """Bytes of the files that the engine loads; None where there are none."""
        ...
