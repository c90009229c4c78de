"""Token inputs: dimensions, generated sequences that look real, and text files through a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from assay.errors import MissingDependencyError, UsageError
from assay.models.spec import Array, RepresentativeInputs, SymbolicDim

if TYPE_CHECKING:
    import numpy as np

__all__ = ["batch_dim", "decode_text", "padded_tokens", "sequence_dim", "tokens"]

# BERT's vocabulary: ids of the marks around a sentence, and the first id that is not a special one.
_CLS, _SEP, _FIRST_WORD = 101, 102, 999


class _File(Protocol):
    def path(self) -> Path: ...


def batch_dim() -> SymbolicDim:
    """The dimension ``batch``: 1 to 32."""
    return SymbolicDim(name="batch", default=1, maximum=32)


def sequence_dim(maximum: int) -> SymbolicDim:
    """The dimension ``sequence``: 1 to ``maximum`` tokens, 128 by default."""
    return SymbolicDim(name="sequence", default=128, maximum=maximum)


def tokens(vocabulary: int) -> RepresentativeInputs:
    """Representative ``input_ids``, int64 [batch, sequence], frequent ids more often, as in natural text."""

    def make(sizes: Mapping[str, int], generator: np.random.Generator) -> dict[str, Array]:
        return {"input_ids": _natural_ids((sizes["batch"], sizes["sequence"]), 0, vocabulary, generator)}

    return make


def padded_tokens(vocabulary: int, *, token_types: bool = False) -> RepresentativeInputs:
    """Representative inputs of BERT-like encoders, each int64 [batch, sequence].

    ``input_ids`` between the sentence marks; ``attention_mask``, in which about every second sequence ends in
    padding (id 0); and with ``token_types`` also ``token_type_ids``, 1 in the second half of a sequence.
    """

    def make(sizes: Mapping[str, int], generator: np.random.Generator) -> dict[str, Array]:
        import numpy as np

        batch, length = sizes["batch"], sizes["sequence"]
        ids = _natural_ids((batch, length), _FIRST_WORD, vocabulary, generator)
        mask = np.ones((batch, length), np.int64)
        types = np.zeros((batch, length), np.int64)
        for row in range(batch):
            padded = length > 2 and (row + int(generator.integers(2))) % 2 == 0
            used = int(generator.integers(max(2, length // 2), length)) if padded else length
            ids[row, used:] = 0
            mask[row, used:] = 0
            ids[row, used - 1] = _SEP
            ids[row, 0] = _CLS
            types[row, used // 2 : used] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        return {**arrays, "token_type_ids": types} if token_types else arrays

    return make


def decode_text(tokenizer: _File, *, maximum: int) -> Callable[[Path], dict[str, Array]]:
    """A function from a text file to ``input_ids`` and ``attention_mask``, int64 [lines, longest line].

    Each line that is not blank is one sequence, cut at ``maximum`` tokens. ``tokenizer`` gives the path of a
    ``tokenizer.json``. The function raises UsageError for a file that is no text, or has none.
    """

    def decode(path: Path) -> dict[str, Array]:
        import numpy as np

        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingDependencyError("tokenizers", "compile") from None
        try:
            lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{str(path)!r} cannot be read as text: {error}.") from error
        if not lines:
            raise UsageError(f"{str(path)!r} has no text in it.")
        encoder = Tokenizer.from_file(str(tokenizer.path()))
        encoder.enable_truncation(maximum)
        encoder.enable_padding()
        encodings = encoder.encode_batch(lines)
        return {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
        }

    return decode


def _natural_ids(
    shape: tuple[int, int], first: int, vocabulary: int, generator: np.random.Generator
) -> Array:
    """Ids from ``first`` below ``vocabulary``, log-uniform, which is about how words are distributed."""
    import numpy as np

    ranks = np.exp(generator.uniform(0, np.log(vocabulary - first), shape)).astype(np.int64)
    return np.minimum(first + ranks - 1, vocabulary - 1)
