"""What a sampler is: one step from logits to the distribution that the next token is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.generate.samplers.candidates import Candidates

__all__ = ["Sampler", "SamplerKind"]


class Sampler(Protocol):
    """Narrows or changes candidates; has no state, so that speculation may ask it in any order."""

    def apply(self, candidates: Candidates, history: npt.NDArray[np.int64]) -> Candidates:
        """Candidates after ``history``, int64 ``[tokens]``: all tokens so far, the prompt's included."""
        ...


@dataclass(frozen=True, kw_only=True)
class SamplerKind:
    """A sampler as users name it: by one number.

    ``make`` gives the sampler for a number and raises UsageError for one out of range; ``neutral`` is the
    number that changes nothing. ``integer`` says that the number is one. ``draws`` says that setting it asks
    for tokens to be drawn at random rather than for the most likely one.
    """

    name: str
    help: str
    neutral: float
    make: Callable[[float], Sampler]
    integer: bool = False
    draws: bool = True
