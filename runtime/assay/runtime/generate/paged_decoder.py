"""A compiled decoder with its cache: tokens of several sequences in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import InterfaceError
from assay.runtime.generate.cache import KvCache
from assay.runtime.generate.engine import Engine, StepMemory
from assay.runtime.generate.pages import PagePool, SequencePages

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.manifest import DecoderInfo

__all__ = ["ROLLBACK", "CachedSequence", "LogitsOf", "PagedDecoder", "pages_needed"]

ROLLBACK = 32
"""Tokens that a sequence can go back by at any time, also where a window moves on."""


class LogitsOf(StrEnum):
    """Which of the tokens that are added get logits."""

    LAST = "last"
    ALL = "all"


class CachedSequence:
    """Tokens of one sequence whose keys and values are in the cache; made by ``PagedDecoder.sequence``."""

    def __init__(self, pages: SequencePages) -> None:
        self.pages = pages
        self.tokens: list[int] = []

    def __len__(self) -> int:
        return len(self.tokens)

    def count(self, tokens: Sequence[int]) -> None:
        """Note that keys and values of ``tokens`` were written."""
        try:
            self.pages.advance(len(tokens))
            self.tokens += tokens
        finally:
            # An interrupt may come in between: then they are as good as not written.
            if self.pages.length != len(self.tokens):
                self.pages.length = len(self.tokens)

    def fork(self) -> CachedSequence:
        """Another sequence of the same tokens; both share memory until they differ."""
        other = CachedSequence(self.pages.fork())
        other.tokens = self.tokens.copy()
        return other

    def truncate(self, length: int) -> None:
        """Go back to the first ``length`` tokens; to none where a window has moved on too far for that."""
        if length == len(self.tokens):
            return
        if not self.pages.can_truncate(length):
            length = 0
        self.pages.truncate(length)
        del self.tokens[length:]

    def keep_common(self, tokens: Sequence[int]) -> int:
        """Go back to where the cached tokens differ from ``tokens``; gives how many are left."""
        common = 0
        for mine, other in zip(self.tokens, tokens, strict=False):
            if mine != other:
                break
            common += 1
        self.truncate(common)
        return len(self.tokens)

    def close(self) -> None:
        """Give the memory back; the sequence is empty then, and can be used again."""
        self.truncate(0)


class PagedDecoder:
    """A decoder with a cache for ``sequences`` sequences of ``context`` tokens each.

    ``make_engine`` gives what computes, for the cache that is made here. Not for several threads at once.
    """

    def __init__(
        self,
        info: DecoderInfo,
        make_engine: Callable[[KvCache], Engine],
        *,
        context: int,
        sequences: int,
        threads: int,
    ) -> None:
        self.info = info
        self.context = context
        self.threads = threads
        self.pool = PagePool(pages_needed(info, context, sequences), info.page_tokens)
        self.cache = KvCache(info, self.pool.size)
        self._engine = make_engine(self.cache)
        self._memory = StepMemory(info, context)

    def sequence(self) -> CachedSequence:
        """A new, empty sequence."""
        return CachedSequence(
            SequencePages(self.pool, self.context, window=self.info.window, rollback=ROLLBACK)
        )

    def forward(
        self, parts: Sequence[tuple[CachedSequence, Sequence[int]]], logits: LogitsOf = LogitsOf.LAST
    ) -> npt.NDArray[np.float32]:
        """Add tokens to sequences, each given once, and give logits: float32 ``[rows, vocabulary]``.

        Rows are in the order of ``parts``: one for the last token of each, or one for every token. Work of
        more tokens, sequences or rows than one call takes is done in several. Raises InterfaceError for token
        ids outside of the vocabulary, a part without tokens and more tokens than the context holds, and
        CapacityError where the cache is full; the sequences are then as they were, or have some of the
        tokens.
        """
        for sequence, tokens in parts:
            self.check(tokens, len(sequence))
        results = []
        for chunk in self._chunks(parts, logits):
            result = self._step(chunk)
            if any(piece.rows for piece in chunk):
                results.append(result)
        return results[0] if len(results) == 1 else np.concatenate(results)

    def check(self, tokens: Sequence[int], cached: int = 0) -> None:
        """Raise InterfaceError where ``tokens`` cannot be added to a sequence of ``cached`` ones."""
        if not tokens:
            raise InterfaceError("There are no tokens to add.", hint="Give a prompt of at least one token.")
        if min(tokens) < 0 or max(tokens) >= self.info.vocabulary:
            wrong = next(token for token in tokens if not 0 <= token < self.info.vocabulary)
            raise InterfaceError(f"There is no token {wrong}: the vocabulary has {self.info.vocabulary}.")
        if cached + len(tokens) > self.context:
            raise InterfaceError(
                f"{cached + len(tokens)} tokens are more than the context of {self.context}.",
                hint=f"Shorten the prompt, or load the model with a larger context (it can have up to "
                f"{self.info.context_length}).",
            )

    def _chunks(
        self, parts: Sequence[tuple[CachedSequence, Sequence[int]]], logits: LogitsOf
    ) -> Iterator[list[_Piece]]:
        """Pieces of ``parts``, in order, as many in a list as one call takes."""
        info = self.info
        chunk: list[_Piece] = []
        tokens = rows = 0
        for sequence, ids in parts:
            start = 0
            while start < len(ids):
                room = info.max_tokens - tokens
                if logits is LogitsOf.ALL:
                    room = min(room, info.max_rows - rows)
                if room == 0 or len(chunk) == info.max_sequences or rows == info.max_rows:
                    yield chunk
                    chunk, tokens, rows = [], 0, 0
                    continue
                piece = ids if start == 0 and len(ids) <= room else ids[start : start + room]
                start += len(piece)
                wanted = len(piece) if logits is LogitsOf.ALL else int(start == len(ids))
                chunk.append(_Piece(sequence=sequence, tokens=piece, rows=wanted))
                tokens += len(piece)
                rows += wanted
        if chunk:
            yield chunk

    def _step(self, chunk: Sequence[_Piece]) -> npt.NDArray[np.float32]:
        """One call: logits of the rows that the pieces ask for; without any, of one that nobody asked for."""
        rows = [0] * max(1, sum(piece.rows for piece in chunk))
        total = sum(len(piece.tokens) for piece in chunk)
        arguments = self._memory.arguments(total, len(chunk), len(rows))
        ids, positions = arguments.input_ids[0], arguments.position_ids[0]
        start = row = 0
        arguments.sequence_offsets[0] = 0
        for index, piece in enumerate(chunk):
            pages, count = piece.sequence.pages, len(piece.tokens)
            copy = pages.reserve(count)
            if copy is not None:
                self._engine.copy_page(copy)
            end = start + count
            if count == 1:
                ids[start], positions[start] = piece.tokens[0], pages.length
            else:
                ids[start:end] = piece.tokens
                positions[start:end] = np.arange(pages.length, pages.length + count)
            arguments.sequence_offsets[index + 1] = end
            arguments.past_lengths[index] = pages.length
            arguments.page_table[index] = pages.table
            rows[row : row + piece.rows] = range(end - piece.rows, end)
            start, row = end, row + piece.rows
        arguments.logits_rows[:] = rows
        logits = self._engine.run(arguments, self.threads)
        for piece in chunk:
            piece.sequence.count(piece.tokens)
        return logits


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Tokens that one call adds to a sequence; the last ``rows`` of them get logits."""

    sequence: CachedSequence
    tokens: Sequence[int]
    rows: int


def pages_needed(info: DecoderInfo, context: int, sequences: int) -> int:
    """Pages that hold ``sequences`` sequences of ``context`` tokens at their fullest.

    With a window, those that a call of the most tokens needs beside what the window and a roll-back hold.
    """
    tokens = context
    if info.window is not None:
        tokens = min(context, info.window + ROLLBACK + info.max_tokens + info.page_tokens)
    return -(-tokens // info.page_tokens) * sequences
