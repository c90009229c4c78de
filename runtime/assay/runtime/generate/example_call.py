"""A call of a decoder as its library takes it, of random tokens: to look at what a call takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import UsageError
from assay.runtime.generate.cache import KvCache

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.manifest import DecoderInfo

__all__ = ["example_call"]


def example_call(info: DecoderInfo, sizes: Mapping[str, int], seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Arrays by name for one call that adds ``tokens`` to each of ``sequences`` sequences of ``past`` ones.

    ``sizes`` may give these three; by default 128 tokens (or as many as fit), 1 and 0. The last token of each
    sequence gets logits. The cache is zeros. Raises UsageError for other names and sizes that no call has.
    """
    unknown = sorted(sizes.keys() - {"tokens", "sequences", "past"})
    if unknown:
        raise UsageError(
            f"A call of a language model has no size {unknown[0]!r}.",
            hint="It has tokens, past and sequences.",
        )
    sequences, past = sizes.get("sequences", 1), sizes.get("past", 0)
    most = min(info.max_tokens // max(1, sequences), info.context_length - past)
    tokens = sizes.get("tokens", min(128, most))
    widest = min(info.max_sequences, info.max_rows)
    if not (1 <= tokens <= most and 1 <= sequences <= widest and past >= 0):
        raise UsageError(
            f"A call of {sequences} x {tokens} tokens after {past} is none that the model takes.",
            hint=f"It takes {info.max_tokens} tokens of {widest} sequences at most, and a context of "
            f"{info.context_length}.",
        )
    width = -(-(past + tokens) // info.page_tokens)
    cache = KvCache(info, width * sequences)
    positions = np.tile(np.arange(past, past + tokens, dtype=np.int64), sequences)
    generator = np.random.default_rng(seed)
    call = {
        "input_ids": generator.integers(0, info.vocabulary, (1, tokens * sequences)),
        "position_ids": positions[np.newaxis],
        "sequence_offsets": np.arange(sequences + 1, dtype=np.int32) * np.int32(tokens),
        "past_lengths": np.full(sequences, past, np.int32),
        "page_table": np.arange(width * sequences, dtype=np.int32).reshape(sequences, width),
        "logits_rows": np.arange(1, sequences + 1, dtype=np.int64) * tokens - 1,
    }
    return {**call, **dict(zip(("cache", "cache_scales"), cache.arrays, strict=False))}
