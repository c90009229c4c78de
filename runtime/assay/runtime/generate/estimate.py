"""How much memory a decoder takes, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.errors import CapacityError, UsageError
from assay.runtime.free_memory import free_memory
from assay.runtime.generate.cache import page_bytes
from assay.runtime.generate.paged_decoder import pages_needed
from assay.runtime.manifest import DecoderInfo, FileDigest, Level, Manifest

__all__ = [
    "DEFAULT_CONTEXT",
    "MemoryEstimate",
    "check_fits",
    "choose_context",
    "estimate_memory",
    "largest_context",
    "logits_bytes",
    "runtime_bytes",
]

DEFAULT_CONTEXT = 4096
"""Tokens of context that a model is loaded with unless told otherwise, where it can have as many."""

# Measured; docs/generate.md compares the sum with what a process takes.
_RUNTIME_BYTES = 64 << 20  # Python, NumPy and TVM's runtime
_TOKENIZER_FACTOR = 32  # memory of a tokenizer over the bytes of its file
_TOKEN_BYTES = 1000  # of a token in the tokenizer's memory, where there is no file yet
_ROWS_OF_A_TEXT = 8  # rows of logits that one text asks for: one, or some more with proposals


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes: ``weights`` of one level, ``cache`` when it is full, ``workspace`` of the largest call, with
    logits, and the ``runtime`` itself with the tokenizer.
    """

    weights: int
    cache: int
    workspace: int
    runtime: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.cache + self.workspace + self.runtime


def choose_context(info: DecoderInfo, context: int | None) -> int:
    """``context``, or by default as much as the model has and DEFAULT_CONTEXT at most. Raises UsageError."""
    if context is None:
        return min(info.context_length, DEFAULT_CONTEXT)
    if not 1 <= context <= info.context_length:
        raise UsageError(
            f"The context must be from 1 to the model's {info.context_length} tokens, not {context}."
        )
    return context


def estimate_memory(manifest: Manifest, level: Level, *, context: int, sequences: int) -> MemoryEstimate:
    """The estimate for a decoder's artifact, with a cache for ``sequences`` texts of ``context`` tokens."""
    info = manifest.decoder
    assert info is not None
    sizes = {weight.name: weight.bytes for weight in manifest.weights}
    workspace = level.workspace.maximum_bytes if level.workspace else 0
    return MemoryEstimate(
        weights=sum(sizes[name] for name in level.entry.weights),
        cache=pages_needed(info, context, sequences) * page_bytes(info),
        workspace=workspace + logits_bytes(info, sequences),
        runtime=runtime_bytes(info, manifest.files),
    )


def logits_bytes(info: DecoderInfo, sequences: int) -> int:
    """Bytes of the logits that steps of ``sequences`` texts ask for."""
    return 4 * info.vocabulary * min(info.max_rows, _ROWS_OF_A_TEXT * sequences)


def runtime_bytes(info: DecoderInfo, files: Mapping[str, FileDigest]) -> int:
    """Bytes of the runtime, and of the tokenizer, by the size of its file or else by the vocabulary."""
    if info.tokenizer is None:
        return _RUNTIME_BYTES
    file = files.get(info.tokenizer)
    tokenizer = _TOKEN_BYTES * info.vocabulary if file is None else _TOKENIZER_FACTOR * file.bytes
    return _RUNTIME_BYTES + tokenizer


def largest_context(manifest: Manifest, level: Level, *, sequences: int, available: int) -> int:
    """The most tokens of context that fit into ``available`` bytes; 0 where not even one does."""
    info = manifest.decoder
    assert info is not None
    low, high = 0, info.context_length
    while low < high:
        middle = (low + high + 1) // 2
        if estimate_memory(manifest, level, context=middle, sequences=sequences).total <= available:
            low = middle
        else:
            high = middle - 1
    return low


def check_fits(
    manifest: Manifest, level: Level, *, context: int, sequences: int, available: int | None = None
) -> MemoryEstimate:
    """The estimate, where it fits into ``available`` bytes (default: what is free on this machine).

    Raises CapacityError with the figures, and with what would fit, where it does not.
    """
    estimate = estimate_memory(manifest, level, context=context, sequences=sequences)
    if available is None:
        available = free_memory()
    if available is None or estimate.total <= available:
        return estimate
    model = manifest.model.name
    raise CapacityError(
        f"{model} does not fit into memory: it needs {_size(estimate.total)} (weights "
        f"{_size(estimate.weights)}, cache {_size(estimate.cache)} for {sequences} x {context} tokens, "
        f"workspace {_size(estimate.workspace)}, runtime {_size(estimate.runtime)}), and {_size(available)} "
        f"are free.",
        hint=_what_fits(manifest, level, sequences, available),
    )


def _what_fits(manifest: Manifest, level: Level, sequences: int, available: int) -> str:
    for count in sorted({sequences, 1}, reverse=True):
        context = largest_context(manifest, level, sequences=count, available=available)
        if context:
            texts = "one sequence" if count == 1 else f"{count} sequences"
            return f"A context of {context} tokens for {texts} would fit."
    return "No context fits: build it with a scheme of fewer bytes, such as int4, or take a smaller model."


def _size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
