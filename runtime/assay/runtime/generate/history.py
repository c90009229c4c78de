"""All tokens of a text so far, as samplers and drafters read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["TokenHistory"]


class TokenHistory:
    """Tokens in one array that grows in place."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        start = np.fromiter(tokens, np.int64)
        self._memory = np.empty(max(64, 2 * len(start)), np.int64)
        self._memory[: len(start)] = start
        self._length = len(start)

    def __len__(self) -> int:
        return self._length

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """int64 ``[tokens]``, a view that the next change may make stale."""
        return self._memory[: self._length]

    @property
    def last(self) -> int:
        """The newest token."""
        return int(self._memory[self._length - 1])

    def append(self, token: int) -> None:
        """Add one token."""
        if self._length == len(self._memory):
            self._memory = np.concatenate([self._memory, np.empty_like(self._memory)])
        self._memory[self._length] = token
        self._length += 1

    def truncate(self, length: int) -> None:
        """Keep the first ``length`` tokens."""
        assert 0 <= length <= self._length
        self._length = length
