"""Inputs to calibrate on and to measure with: recorded ones, text, or a model's representative inputs."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import MissingDependencyError
from assay.models.inputs import make_inputs

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.spec import Array, ModelSpec

__all__ = ["Purpose", "decoder_inputs", "read_samples", "read_text", "representative_samples", "tokenized"]

_CALIBRATION_COUNT, _EVALUATION_COUNT = 32, 16
# Of a text for a decoder: tokens of one sample.
_CHUNK = 256
_SHORTEST_PARAGRAPH = 60  # characters: headings say little


class Purpose(StrEnum):
    """What samples are for: no sample serves both."""

    CALIBRATION = "calibration"
    EVALUATION = "evaluation"


_TEXTS = {Purpose.CALIBRATION: "declaration.txt", Purpose.EVALUATION: "constitution.txt"}
# Verification runs on the seeds from 0 on.
_SEEDS = {Purpose.CALIBRATION: 1000, Purpose.EVALUATION: 2000}


def read_text(purpose: Purpose) -> str:
    """The English text that comes with the package for a purpose."""
    return (Path(__file__).parent / "text" / _TEXTS[purpose]).read_text("ascii")


def representative_samples(
    spec: ModelSpec, purpose: Purpose, count: int | None = None
) -> list[dict[str, Array]]:
    """Inputs by name, the same every time.

    For a decoder, chunks of 256 tokens with an empty cache: of a text where it has a tokenizer, else seeded
    random ones; for another model that decodes text files, paragraphs of the text; for any other, seeded
    representative inputs at the default sizes.
    """
    if count is None:
        count = _CALIBRATION_COUNT if purpose is Purpose.CALIBRATION else _EVALUATION_COUNT
    if spec.decoder is not None:
        length = min(_CHUNK, spec.decoder.context_length)
        if spec.decoder.tokenizer is None:
            ids = _random_ids(spec.decoder.vocabulary, count * length, _SEEDS[purpose])
        else:
            ids = tokenized(spec.decoder.tokenizer, read_text(purpose))
        starts = range(0, len(ids) - length + 1, length)
        return [
            decoder_inputs(spec, ids[start : start + length]) for start in itertools.islice(starts, count)
        ]
    if spec.decode_file is not None and "text" in spec.tags:
        return list(itertools.islice(_paragraphs(spec, purpose), count))
    return [make_inputs(spec, seed=_SEEDS[purpose] + index) for index in range(count)]


def _random_ids(vocabulary: int, count: int, seed: int) -> npt.NDArray[Any]:
    import numpy as np

    ids: npt.NDArray[Any] = np.random.default_rng(seed).integers(0, vocabulary, count, np.int64)
    return ids


def _paragraphs(spec: ModelSpec, purpose: Purpose) -> Iterator[dict[str, Array]]:
    assert spec.decode_file is not None
    with tempfile.TemporaryDirectory(prefix="assay-text-") as folder:
        path = Path(folder) / "paragraph.txt"
        for paragraph in read_text(purpose).split("\n\n"):
            if len(paragraph) >= _SHORTEST_PARAGRAPH:
                path.write_text(paragraph, "ascii")
                yield spec.decode_file(path)


def tokenized(tokenizer: Path, text: str) -> npt.NDArray[Any]:
    """Token ids, int64, of a text, without marks around it. Raises MissingDependencyError."""
    import numpy as np

    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingDependencyError("tokenizers", "compile") from None
    encoding = Tokenizer.from_file(str(tokenizer)).encode(text, add_special_tokens=False)
    ids: npt.NDArray[Any] = np.array(encoding.ids, np.int64)
    return ids


def decoder_inputs(spec: ModelSpec, ids: npt.NDArray[Any]) -> dict[str, Array]:
    """A prompt, ``ids`` int64 [tokens], as inputs of the canonical decoder: batch 1, an empty cache."""
    import numpy as np

    known: dict[str, Array] = {
        "input_ids": ids[np.newaxis],
        "position_ids": np.arange(len(ids), dtype=np.int64)[np.newaxis],
        "attention_mask": np.ones((1, len(ids)), np.int64),
    }
    decoder = spec.decoder
    assert decoder is not None
    empty = np.empty((1, decoder.kv_heads, 0, decoder.head_dim), np.float32)
    return {item.name: known.get(item.name, empty) for item in spec.inputs}


def read_samples(folder: Path, spec: ModelSpec) -> list[Mapping[str, Array]]:
    """Every case of a folder as ``assay run --record`` writes it, in the order of their names.

    Raises WorkloadError for a folder without cases, and for a case that does not fit the model.
    """
    from assay.compile.describe import interface_of
    from assay.compile.pgo.workload import read_cases

    return [case.inputs for case in read_cases(folder, interface_of(spec))]
