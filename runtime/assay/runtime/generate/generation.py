"""A text that comes piece by piece, as an iterator."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.runtime.generate.paged_decoder import PagedDecoder
from assay.runtime.generate.request import FinishReason, Request, advance
from assay.runtime.generate.stops import StopStrings

if TYPE_CHECKING:
    from assay.runtime.generate.statistics import Statistics
    from assay.runtime.generate.tokenizer import TextStream, Tokenizer

__all__ = ["Completion", "Generation", "Piece", "Writer", "complete"]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One new token, and the text that it completes: often a word, now and then nothing."""

    token: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished text: its new tokens, their text, why it ended, and what it took."""

    tokens: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    statistics: Statistics


class Writer:
    """Turns the tokens of one request into pieces, and ends it at a stop string."""

    def __init__(self, request: Request, tokenizer: Tokenizer | None, stops: Sequence[str]) -> None:
        self.request = request
        self.pieces: list[Piece] = []
        self._stream: TextStream | None = None
        if tokenizer is not None:
            self._stream = tokenizer.stream(request.history.tokens.tolist())
        self._stops = StopStrings(stops)

    def add(self, tokens: Sequence[int]) -> list[Piece]:
        """Pieces of new tokens. At a stop string the request is finished, and what follows is left out."""
        new: list[Piece] = []
        for index, token in enumerate(tokens):
            text = "" if self._stream is None else self._stops.add(self._stream.add(token))
            ends = index == len(tokens) - 1 and self.request.finish_reason is not None
            if self._stops.found is not None:
                self.request.finish_reason = FinishReason.STOP
                self.request.drop(len(tokens) - index - 1)
            elif ends and self._stream is not None:
                text += self._stops.add(self._stream.end()) + self._stops.end()
            new.append(Piece(token=token, text=text))
            if self._stops.found is not None:
                break
        self.pieces += new
        return new

    def completion(self) -> Completion:
        """All pieces together. The request must be finished."""
        assert self.request.finish_reason is not None
        return Completion(
            tokens=tuple(piece.token for piece in self.pieces),
            text="".join(piece.text for piece in self.pieces),
            finish_reason=self.request.finish_reason,
            statistics=self.request.statistics,
        )


class Generation(Iterator[Piece]):
    """The pieces of one text as they come; ``close``, or the end, gives the memory back.

    ``finish_reason`` is None while it runs. ``statistics`` count up to the last piece.
    """

    def __init__(self, decoder: PagedDecoder, writer: Writer, release: Callable[[], None]) -> None:
        self._writer = writer
        self._release = release
        self._steps = self._run(decoder)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text ended."""
        return self._writer.request.finish_reason

    @property
    def statistics(self) -> Statistics:
        """Counts and seconds so far."""
        return self._writer.request.statistics

    @property
    def tokens(self) -> tuple[int, ...]:
        """New tokens so far."""
        return tuple(piece.token for piece in self._writer.pieces)

    @property
    def text(self) -> str:
        """The text of the pieces so far."""
        return "".join(piece.text for piece in self._writer.pieces)

    def __next__(self) -> Piece:
        return next(self._steps)

    def close(self) -> None:
        """End early."""
        self._steps.close()
        self._release()

    def result(self) -> Completion:
        """Run to the end, and give all of it."""
        for _ in self:
            pass
        return self._writer.completion()

    def _run(self, decoder: PagedDecoder) -> Generator[Piece, None, None]:
        request = self._writer.request
        try:
            (tokens,) = advance(decoder, [request], begin=True)
            yield from self._writer.add(tokens)
            while request.finish_reason is None:
                (tokens,) = advance(decoder, [request])
                yield from self._writer.add(tokens)
        finally:
            self._release()


def complete(decoder: PagedDecoder, writers: Sequence[Writer], at_once: int) -> list[Completion]:
    """Run all to their ends, up to ``at_once`` of them together; those that wait begin when others end."""
    waiting = list(reversed(writers))
    active: list[Writer] = []
    try:
        while waiting or active:
            fresh = [waiting.pop() for _ in range(min(at_once - len(active), len(waiting)))]
            for begin, group in ((True, fresh), (False, active)):
                if group:
                    requests = [writer.request for writer in group]
                    results = advance(decoder, requests, begin=begin)
                    for writer, tokens in zip(group, results, strict=True):
                        writer.add(tokens)
            active += fresh
            for writer in active:
                if writer.request.finish_reason is not None:
                    writer.request.close()
            active = [writer for writer in active if writer.request.finish_reason is None]
    finally:
        for writer in active:
            writer.request.close()
    return [writer.completion() for writer in writers]
