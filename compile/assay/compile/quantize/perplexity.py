"""Perplexity of a language model on a text: how many tokens it wavers between, on average."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from assay.compile.quantize.samples import decoder_inputs
from assay.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.spec import ModelSpec
    from assay.runtime.generate.decoder import Decoder

__all__ = [
    "WINDOW",
    "ArtifactLanguageModel",
    "LanguageModel",
    "OnnxLanguageModel",
    "Perplexity",
    "cross_entropy",
    "perplexity",
]


WINDOW = 512
"""Tokens that perplexity is measured over at a time, unless a model's context is shorter."""


class LanguageModel(Protocol):
    """Whatever gives logits: ONNX Runtime on canonical ONNX, or a compiled decoder.

    The token that every text of a model begins with, if it has one, is put before the sequence.
    """

    def logits(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Logits [tokens, vocabulary] of a sequence [tokens] that starts with nothing before it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """exp of the mean cross-entropy (in nats) of ``tokens`` predicted tokens."""

    value: float
    tokens: int


class OnnxLanguageModel:
    """ONNX Runtime on the canonical decoder ONNX at ``path``; ``spec`` is the model's."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        from assay.compile.verify import open_reference

        self._spec = spec
        self._session = open_reference(path)

    def logits(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Logits [tokens, vocabulary]. Raises ModelError where ONNX Runtime refuses the model."""
        from assay.compile.verify import run_reference

        decoder = self._spec.decoder
        assert decoder is not None
        first = _first_tokens(decoder.add_bos, decoder.bos_id)
        ids = np.concatenate([first, tokens])
        outputs = run_reference(self._session, decoder_inputs(self._spec, ids))
        found: npt.NDArray[np.float32] = outputs["logits"][0, len(first) :]
        return found


class ArtifactLanguageModel:
    """A compiled decoder, as ``assay.runtime.load_decoder`` gives it."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def logits(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Logits [tokens, vocabulary]. Raises what ``Decoder.forward`` does."""
        from assay.runtime.generate.paged_decoder import LogitsOf

        info = self._decoder.info
        first = _first_tokens(info.add_bos, next(iter(info.bos_ids), None))
        sequence = self._decoder.sequence()
        try:
            parts = [(sequence, [*first.tolist(), *tokens.tolist()])]
            # The next call may write into what this one gave.
            return self._decoder.forward(parts, LogitsOf.ALL)[len(first) :].copy()
        finally:
            sequence.close()


def _first_tokens(add_bos: bool, bos: int | None) -> npt.NDArray[np.int64]:
    """What stands before every text of a model."""
    return np.array([bos] if add_bos and bos is not None else [], np.int64)


def cross_entropy(logits: npt.NDArray[Any], wanted: npt.NDArray[np.int64]) -> float:
    """Sum over rows of -log softmax(``logits`` [rows, vocabulary])[``wanted`` [rows]], in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    sums = np.log(np.exp(shifted).sum(axis=1))
    return float((sums - shifted[np.arange(len(wanted)), wanted]).sum())


def perplexity(
    model: LanguageModel, tokens: npt.NDArray[np.int64], *, window: int = WINDOW, most: int | None = None
) -> Perplexity:
    """Perplexity on ``tokens``, read in windows that overlap by half and each start anew.

    Every token but the first is predicted once, those behind the first window from at least half a window.
    ``most`` ends after that many predictions. Raises UsageError for fewer than two tokens.
    """
    if len(tokens) < 2:
        raise UsageError("Perplexity takes a text of at least two tokens.")
    total, count = 0.0, 0
    for part, first in _windows(tokens, window):
        logits = model.logits(part[:-1])[first - 1 :]
        total += cross_entropy(logits, part[first:])
        count += len(part) - first
        if most is not None and count >= most:
            break
    return Perplexity(value=math.exp(total / count), tokens=count)


def _windows(tokens: npt.NDArray[np.int64], window: int) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Parts of at most ``window`` tokens, each with the position of the first token to predict in it."""
    window = min(window, len(tokens))
    half = max(1, window // 2)
    first = 1
    for start in range(0, len(tokens), half):
        part = tokens[start : start + window]
        if len(part) <= first:
            return
        yield part, first
        first = window - half
