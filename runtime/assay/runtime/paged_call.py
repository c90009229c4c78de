"""Checks of one call of a decoder with a paged cache: kernels follow its page table without looking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assay.errors import InterfaceError
from assay.runtime.packing import ALIGNMENT

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.manifest import DecoderInfo

__all__ = ["check_paged_call"]


def check_paged_call(info: DecoderInfo, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise InterfaceError, naming the input, where a call would touch what is not its own.

    ``inputs`` by name have passed the check of names, dtypes and shapes. The cache must be memory that can
    be written in place.
    """
    for name in ("cache", "cache_scales"):
        if name in inputs:
            _check_memory(name, inputs[name])
    rows = _check_offsets(inputs)
    _check_pages(info, inputs, rows)
    for name, size, what in (
        ("input_ids", info.vocabulary, "the vocabulary"),
        ("position_ids", info.context_length, "the context"),
        ("logits_rows", inputs["input_ids"].shape[1], "the tokens of the call"),
    ):
        _check_range(name, inputs[name], size, what)


def _check_memory(name: str, array: npt.NDArray[Any]) -> None:
    flags = array.flags
    aligned = array.__array_interface__["data"][0] % ALIGNMENT == 0
    if not (flags.c_contiguous and flags.writeable and aligned):
        raise InterfaceError(
            f"Input {name!r} cannot be written in place.",
            hint=f"It has to be contiguous, writable, and aligned to {ALIGNMENT} bytes.",
        )


def _check_offsets(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The number of rows of each sequence."""
    import numpy as np

    offsets, sequences = inputs["sequence_offsets"], len(inputs["past_lengths"])
    tokens = inputs["input_ids"].shape[1]
    rows: npt.NDArray[Any] = np.diff(offsets)
    if len(offsets) != sequences + 1 or offsets[0] != 0 or offsets[-1] != tokens or rows.min() < 0:
        raise InterfaceError(
            f"Input 'sequence_offsets' does not divide {tokens} tokens among {sequences} sequences.",
            hint="It starts with 0, ends with the number of tokens, never falls, and has one element more "
            "than 'past_lengths'.",
        )
    return rows


def _check_pages(info: DecoderInfo, inputs: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[Any]) -> None:
    past, table, pages = inputs["past_lengths"], inputs["page_table"], len(inputs["cache"])
    room = min(table.shape[1] * info.page_tokens, info.context_length)
    for sequence, (before, new) in enumerate(zip(past.tolist(), rows.tolist(), strict=True)):
        if before < 0 or before + new > room:
            raise InterfaceError(
                f"Sequence {sequence} has {before} tokens in the cache and {new} new ones; there is room for "
                f"{room}.",
                hint="'page_table' gives room for a page's tokens in each column, up to the context length.",
            )
        used = table[sequence, : -(-(before + new) // info.page_tokens)]
        if used.size and not (used.min() >= 0 and used.max() < pages):
            raise InterfaceError(f"Input 'page_table': sequence {sequence} names a page that is not there.")


def _check_range(name: str, array: npt.NDArray[Any], size: int, what: str) -> None:
    if array.size and not (array.min() >= 0 and array.max() < size):
        raise InterfaceError(
            f"Input {name!r} has values from {array.min()} to {array.max()}; {what} has 0 to {size - 1}."
        )
