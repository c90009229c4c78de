"""What quantizing does to a model's task: classes, embeddings, or the next word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.compile.quantize.distortion import Distortion, distortion
from assay.compile.quantize.perplexity import WINDOW, OnnxLanguageModel, perplexity
from assay.compile.quantize.samples import Purpose, read_text, tokenized

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.models.spec import Array, ModelSpec

__all__ = ["Effect", "artifact_perplexity", "measure_effects"]

_PREDICTIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One measure of a task. ``before`` is None where the measure compares the two models itself.

    ``count`` says over how many (predictions, rows).
    """

    measure: str
    before: float | None
    after: float
    count: int


def measure_effects(
    spec: ModelSpec, before: Path, after: Path, samples: Sequence[Mapping[str, Array]]
) -> tuple[dict[str, Distortion], list[Effect]]:
    """Errors by output of ``after`` against ``before``, both canonical ONNX, and what they do to the task.

    The task is told by the specification: for language models the share of positions with the same most
    likely token, and perplexity where there is a tokenizer; for image models the share of samples with the
    same class; for others the least and the mean cosine similarity of the rows of each output.
    """
    from assay.compile.verify import reference_outputs

    wanted, actual = reference_outputs(before, samples), reference_outputs(after, samples)
    names = [
        name
        for name, array in wanted[0].items()
        if array.dtype.kind == "f" and not name.startswith("present.")
    ]
    errors = {}
    effects = []
    ranked = bool(spec.tags & {"image", "language-model"}) or spec.decoder is not None
    for name in names:
        pairs = [(ours[name], theirs[name]) for ours, theirs in zip(actual, wanted, strict=True)]
        first, *others = (distortion(*pair) for pair in pairs)
        errors[name] = sum(others, first)
        label = f" of {name}" if len(names) > 1 else ""
        if ranked and pairs[0][0].ndim >= 2 and pairs[0][0].shape[-1] > 1:
            same = np.concatenate([(a.argmax(-1) == b.argmax(-1)).ravel() for a, b in pairs])
            measure = f"top-1 agreement{label}"
            effects.append(Effect(measure=measure, before=None, after=float(same.mean()), count=same.size))
        else:
            cosines = np.concatenate([_cosines(*pair) for pair in pairs])
            for measure, value in (("mean cosine", cosines.mean()), ("least cosine", cosines.min())):
                effects.append(
                    Effect(measure=f"{measure}{label}", before=None, after=float(value), count=cosines.size)
                )
    if spec.decoder is not None and spec.decoder.tokenizer is not None:
        effects.append(_perplexities(spec, before, after, spec.decoder.tokenizer))
    return errors, effects


def _cosines(actual: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Cosine similarity of each row along the last axis; 1 where both are zero."""
    a = np.atleast_2d(actual).astype(np.float64)
    w = np.atleast_2d(wanted).astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(w, axis=-1)
    products = (a * w).sum(-1)
    same = np.all(a == w, axis=-1)
    cosines: npt.NDArray[np.float64] = np.where(same, 1.0, products / np.where(norms == 0, 1, norms))
    return cosines.ravel()


def artifact_perplexity(path: Path, *, threads: int | None = None, predictions: int = _PREDICTIONS) -> Effect:
    """Perplexity of the compiled decoder at ``path`` on the text of the reports.

    Raises UsageError for an artifact that is no decoder, TokenizerError for one without a tokenizer.
    """
    from assay.compile.quantize.perplexity import ArtifactLanguageModel
    from assay.runtime.artifact import open_artifact
    from assay.runtime.generate.loading import decoder_info, load_decoder

    info = decoder_info(open_artifact(path).manifest, path)
    context = min(WINDOW + 1, info.context_length)
    decoder = load_decoder(path, threads=threads, context=context)
    ids = decoder.tokenizer.encode(read_text(Purpose.EVALUATION), begin=False)
    found = perplexity(
        ArtifactLanguageModel(decoder), np.array(ids, np.int64), window=context - 1, most=predictions
    )
    return Effect(measure="perplexity", before=None, after=found.value, count=found.tokens)


def _perplexities(spec: ModelSpec, before: Path, after: Path, tokenizer: Path) -> Effect:
    tokens = tokenized(tokenizer, read_text(Purpose.EVALUATION))
    assert spec.decoder is not None
    window = min(WINDOW, spec.decoder.context_length - 1)
    values = [
        perplexity(OnnxLanguageModel(path, spec), tokens, window=window, most=_PREDICTIONS)
        for path in (before, after)
    ]
    return Effect(measure="perplexity", before=values[0].value, after=values[1].value, count=values[0].tokens)
