"""Pages of the cache: a fixed pool, and the sequences that share it.

A page holds the keys and values of ``page_tokens`` consecutive tokens in all layers, as in Kwon et al.,
"Efficient Memory Management for Large Language Model Serving with PagedAttention" (SOSP 2023). Sequences that
were forked share pages; a page that is shared is copied before one of them writes into it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import CapacityError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["PageCopy", "PagePool", "SequencePages"]

_GONE = -1  # a page that left the window
_EMPTY_SLOT = 0  # in a table: kernels read no page there, and 0 is one that they could read


@dataclass(frozen=True, kw_only=True)
class PageCopy:
    """A page whose content must be copied to another one before anything is written there."""

    source: int
    destination: int


class PagePool:
    """A fixed number of pages, each free or held by one sequence or more."""

    def __init__(self, pages: int, page_tokens: int) -> None:
        self.size = pages
        self.page_tokens = page_tokens
        self._holders = [0] * pages
        self._free = list(range(pages - 1, -1, -1))  # the last one is taken next: it is likely in a cache

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """``count`` free pages, from now on held once. Raises CapacityError, and takes none, if too few."""
        if count > len(self._free):
            tokens = self.page_tokens
            raise CapacityError(
                f"The cache is full: {count} pages of {tokens} tokens are needed, and {len(self._free)} of "
                f"{self.size} are free.",
                hint="Close or shorten sequences, or load the model with a larger context or more sequences.",
            )
        taken = [self._free.pop() for _ in range(count)]
        for page in taken:
            self._holders[page] = 1
        return taken

    def hold(self, page: int) -> None:
        """One more holder of a page that is held already."""
        assert self._holders[page] > 0
        self._holders[page] += 1

    def release(self, page: int) -> None:
        """One holder less; without any, the page is free."""
        assert self._holders[page] > 0
        self._holders[page] -= 1
        if not self._holders[page]:
            self._free.append(page)

    def holders(self, page: int) -> int:
        """How many sequences hold a page."""
        return self._holders[page]


class SequencePages:
    """The pages of one sequence of at most ``context`` tokens; ``length`` tokens are in the cache.

    ``table`` is int32 ``[ceil(context / page_tokens)]``: the page of tokens ``p * page_tokens`` and on at
    ``p``, as kernels read it. With a ``window`` (a token sees ``window`` tokens, itself included), pages that
    no further token can see are given back, except for those that a roll-back of ``rollback`` tokens needs.
    """

    def __init__(self, pool: PagePool, context: int, *, window: int | None = None, rollback: int = 0) -> None:
        self.pool = pool
        self.context = context
        self.window = window
        self.rollback = rollback
        self.length = 0
        self.table: npt.NDArray[np.int32] = np.full(-(-context // pool.page_tokens), _EMPTY_SLOT, np.int32)
        self._pages: list[int] = []
        self._first = 0  # the first page that has not left the window

    @property
    def pages(self) -> tuple[int, ...]:
        """The pages that this sequence holds, in order."""
        return tuple(self._pages[self._first :])

    def reserve(self, tokens: int) -> PageCopy | None:
        """Make room for ``tokens`` more; gives the copy that has to be made before they are written.

        Raises CapacityError when the pool has too few pages, and ValueError beyond the context; nothing has
        changed then but that pages outside of the window are free.
        """
        if tokens < 0 or self.length + tokens > self.context:
            raise ValueError(f"{self.length} + {tokens} tokens are beyond the context of {self.context}")
        self._drop_pages_before_window()
        size = self.pool.page_tokens
        partial = self._shared_partial_page() if tokens else None
        missing = max(0, -(-(self.length + tokens) // size) - len(self._pages))
        taken = self.pool.take(missing + (partial is not None))
        copy = None
        if partial is not None:
            source, own = self._pages[partial], taken.pop()
            copy = PageCopy(source=source, destination=own)
            self.pool.release(source)
            self._pages[partial] = self.table[partial] = own
        if taken:
            start = len(self._pages)
            self._pages += taken
            self.table[start : start + len(taken)] = taken
        return copy

    def advance(self, tokens: int) -> None:
        """Count ``tokens`` that were written to room that was reserved."""
        assert self.length + tokens <= len(self._pages) * self.pool.page_tokens
        self.length += tokens

    def fork(self) -> SequencePages:
        """Another sequence of the same tokens, which shares all pages with this one."""
        other = SequencePages(self.pool, self.context, window=self.window, rollback=self.rollback)
        other.length, other._first = self.length, self._first
        kept = -(-self.length // self.pool.page_tokens)
        other._pages = self._pages[:kept]
        other.table[:kept] = self.table[:kept]
        for page in other.pages:
            self.pool.hold(page)
        return other

    def can_truncate(self, length: int) -> bool:
        """Whether all that a token after the first ``length`` ones can see is still there."""
        if not 0 <= length <= self.length:
            return False
        return length == 0 or self._first_seen(length) // self.pool.page_tokens >= self._first

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length``. Raises ValueError where ``can_truncate`` is false."""
        if not self.can_truncate(length):
            raise ValueError(f"cannot go back from {self.length} tokens to {length}")
        keep = -(-length // self.pool.page_tokens)
        self._release(self._pages[max(keep, self._first) :])
        del self._pages[keep:]
        self.table[keep:] = _EMPTY_SLOT
        self.length = length
        self._first = min(self._first, keep)

    def close(self) -> None:
        """Give all pages back."""
        self.truncate(0)

    def _first_seen(self, length: int) -> int:
        """The first token that a token after the first ``length`` ones can see."""
        return 0 if self.window is None else max(0, length - self.window + 1)

    def _drop_pages_before_window(self) -> None:
        if self.window is None:
            return
        first = self._first_seen(max(0, self.length - self.rollback)) // self.pool.page_tokens
        for index in range(self._first, min(first, len(self._pages))):
            self.pool.release(self._pages[index])
            self._pages[index] = _GONE
            self.table[index] = _EMPTY_SLOT
            self._first = index + 1

    def _shared_partial_page(self) -> int | None:
        """The index of the last page where it has room and another sequence holds it too."""
        index, used = divmod(self.length, self.pool.page_tokens)
        if used and self.pool.holders(self._pages[index]) > 1:
            return index
        return None

    def _release(self, pages: Iterable[int]) -> None:
        for page in pages:
            self.pool.release(page)
