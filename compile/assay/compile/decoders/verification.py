"""Calls that a compiled decoder is verified with, and what ONNX Runtime makes of the canonical model.

One cache serves all calls, in order: sequences grow by prompts of several lengths, in one call and in pieces,
alone and together, then token by token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assay.compile.decoders.interface import PAGE_TOKENS, DecoderOptions
from assay.compile.verify import Case, make_cases, open_reference, run_reference
from assay.models.decoders.spec import DecoderSpec
from assay.models.spec import Tolerance

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from assay.models.export import CanonicalModel

__all__ = ["cases_with_tolerance", "decoder_cases", "decoder_tolerance"]

# Longer windows take more time to pass than they add certainty.
_LONGEST_WINDOW = 600
_SEED = 20

# Errors of rows of logits over their standard deviation, by what is rounded: see docs/decoders.md.
_CACHE_ERROR = {"float32": 1e-3, "float16": 5e-3, "int8": 5e-2}
_ACTIVATION_ERROR = 0.25
# Of so many logits, single ones are several times further off than their root mean square. Between ONNX
# Runtime's own with activations in 8 bits and in float32 it is 1.2 standard deviations (SmolLM2 in Q4_K_M).
_OUTLIER = 12.0


@dataclass(kw_only=True)
class _Sequence:
    """Tokens so far, ONNX Runtime's past, and pages."""

    past: dict[str, npt.NDArray[Any]]
    pages: list[int] = field(default_factory=list)
    length: int = 0


def _plan(decoder: DecoderSpec, options: DecoderOptions, *, few: bool) -> list[list[tuple[int, int]]]:
    """The calls, each as pairs of a sequence and how many tokens it adds."""
    page, most = PAGE_TOKENS, min(options.max_tokens, decoder.context_length // 4)
    if few:
        calls = [
            [(0, min(page + 5, most))],
            [(1, 1)],
            [(1, min(7, most)), (0, 1)],
            [(0, 1), (1, 1)],
            [(0, 1)],
        ]
        return _possible(calls, options)
    chunk = min(2 * page + 3, most)
    calls = [
        [(0, 1)],
        [(0, min(page + 5, most))],
        [(1, chunk)],
        [(1, min(7, most)), (0, 1)],
        [(2, min(page, most))],
        [(0, 1), (2, 1), (1, 1)],
        [(0, 1), (2, 1), (1, 1)],
        [(2, 1)],
    ]
    if decoder.window is not None and decoder.window <= _LONGEST_WINDOW:
        more = min(decoder.window + page, decoder.context_length - 2 * page)
        while more > 0:
            calls.append([(2, min(more, most))])
            more -= min(more, most)
        calls.append([(2, 1)])
    return _possible(calls, options)


def _possible(calls: Sequence[list[tuple[int, int]]], options: DecoderOptions) -> list[list[tuple[int, int]]]:
    """Those of ``calls`` that one call takes, with as many sequences as that."""
    every = options.max_sequences
    return [call[:every] for call in calls if sum(count for _, count in call[:every]) <= options.max_tokens]


def decoder_cases(canonical: CanonicalModel, options: DecoderOptions, *, few: bool = False) -> list[Case]:
    """Calls in order, less the cache, with the logits of ONNX Runtime on each sequence alone.

    With ``few``, for code that is emulated, they have half as many tokens.
    Raises ModelError where ONNX Runtime refuses the model.
    """
    import numpy as np

    decoder = canonical.spec.decoder
    assert decoder is not None
    session = open_reference(canonical.path)
    generator = np.random.default_rng(_SEED)
    pages = iter(_shuffled_pages(generator))
    known: dict[int, _Sequence] = {}
    cases = []
    for call in _plan(decoder, options, few=few):
        ids, expected, past = [], [], [known[s].length if s in known else 0 for s, _ in call]
        for s, count in call:
            if s not in known:
                known[s] = _Sequence(past=_empty_past(decoder))
            tokens = generator.integers(0, decoder.vocabulary, count)
            expected.append(_advance(session, known[s], tokens, pages))
            ids.append(tokens)
        rows = _rows([count for _, count in call], options.max_rows)
        inputs = _inputs([known[s] for s, _ in call], ids, past, rows)
        sizes = {"tokens": sum(map(len, ids)), "sequences": len(call), "past": max(past)}
        cases.append(Case(sizes=sizes, inputs=inputs, expected={"logits": np.concatenate(expected)[rows]}))
    return cases


def _shuffled_pages(generator: np.random.Generator) -> Iterator[int]:
    """Pages of the cache, out of order as they are after a while, and more where these do not suffice."""
    start = 0
    while True:
        yield from (start + int(page) for page in generator.permutation(16))
        start += 16


def _empty_past(decoder: DecoderSpec) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    empty = np.zeros((1, decoder.kv_heads, 0, decoder.head_dim), np.float32)
    names = [f"past_key_values.{layer}" for layer in range(decoder.layers)]
    return {f"{name}.{kind}": empty for name in names for kind in ("key", "value")}


def _advance(
    session: Any, sequence: _Sequence, tokens: npt.NDArray[Any], pages: Iterator[int]
) -> npt.NDArray[np.float32]:
    """Add ``tokens`` to a sequence: ONNX Runtime's logits of each."""
    import numpy as np

    end = sequence.length + len(tokens)
    feeds = {
        "input_ids": tokens[None],
        "position_ids": np.arange(sequence.length, end)[None],
        "attention_mask": np.ones((1, end), np.int64),
        **sequence.past,
    }
    taken = {item.name for item in session.get_inputs()}
    outputs = run_reference(session, {name: array for name, array in feeds.items() if name in taken})
    sequence.past = {name: outputs[name.replace("past_key_values", "present")] for name in sequence.past}
    sequence.length = end
    while len(sequence.pages) * PAGE_TOKENS < end:
        sequence.pages.append(next(pages))
    logits: npt.NDArray[np.float32] = outputs["logits"][0]
    return logits


def _rows(counts: Sequence[int], most: int) -> npt.NDArray[np.int64]:
    """Rows to compare: the last of each sequence, and as many of all others as fit, from the first on."""
    import numpy as np

    last = np.cumsum(counts) - 1
    others = np.setdiff1d(np.arange(sum(counts)), last)
    rows: npt.NDArray[np.int64] = np.concatenate([last, others])[:most].astype(np.int64)
    return rows


def _inputs(
    sequences: Sequence[_Sequence],
    ids: Sequence[npt.NDArray[Any]],
    past: Sequence[int],
    rows: npt.NDArray[np.int64],
) -> dict[str, npt.NDArray[Any]]:
    """The inputs of one call in the order of the interface, less the cache."""
    import numpy as np

    counts = [len(tokens) for tokens in ids]
    positions = [np.arange(p, p + n) for p, n in zip(past, counts, strict=True)]
    table = np.zeros((len(sequences), max(len(each.pages) for each in sequences)), np.int32)
    for row, sequence in zip(table, sequences, strict=True):
        row[: len(sequence.pages)] = sequence.pages
    return {
        "input_ids": np.concatenate(ids)[None].astype(np.int64),
        "position_ids": np.concatenate(positions)[None].astype(np.int64),
        "sequence_offsets": np.cumsum([0, *counts]).astype(np.int32),
        "past_lengths": np.array(past, np.int32),
        "page_table": table,
        "logits_rows": rows,
    }


def cases_with_tolerance(
    canonical: CanonicalModel,
    options: DecoderOptions,
    more: Sequence[Mapping[str, int]] = (),
    *,
    few: bool = False,
) -> tuple[list[Case], Tolerance]:
    """What to run and how far it may be from ONNX Runtime, for a decoder as for any other model.

    ``more``: further sizes of a model that is no decoder, of all its symbolic dimensions. ``few``: as little
    as shows that the code is right, where every operation is slow.
    """
    if canonical.spec.decoder is None:
        return make_cases(canonical, more, few=few), canonical.spec.tolerance
    cases = decoder_cases(canonical, options, few=few)
    return cases, decoder_tolerance(canonical, cases, options)


def decoder_tolerance(canonical: CanonicalModel, cases: Sequence[Case], options: DecoderOptions) -> Tolerance:
    """How far logits may be from ONNX Runtime's, as a part of their standard deviation.

    Logits mean something by their differences alone, so that the relative error of one says little.
    """
    import numpy as np

    spread = float(np.mean([case.expected["logits"].std(axis=-1).mean() for case in cases]))
    row = _CACHE_ERROR[options.cache_dtype] + (_ACTIVATION_ERROR if _rounds_activations(canonical) else 0.0)
    absolute = canonical.spec.tolerance.absolute + _OUTLIER * row * spread
    return Tolerance(absolute=float(f"{absolute:.3g}"), relative=0.0, row=row)


def _rounds_activations(canonical: CanonicalModel) -> bool:
    """Whether products round their activations to 8 bits, each engine in its own way."""
    import onnx

    graph = onnx.load(canonical.path, load_external_data=False).graph
    return any(
        node.op_type == "MatMulNBits" and attribute.name == "accuracy_level" and attribute.i == 4
        for node in graph.node
        for attribute in node.attribute
    )
