"""What proposes the next candidate of a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay.compile.schedules.choices import Choice
from assay.compile.tune.journal import Trial
from assay.compile.tune.space import Space

__all__ = ["Strategy", "untried"]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """``propose(space, trials)`` gives the next candidate after ``trials``, None when there is none.

    It keeps no state of its own, so that a search goes on where a killed one was.
    """

    name: str
    description: str
    propose: Callable[[Space, Sequence[Trial]], Choice | None]


def untried(candidate: Choice, trials: Sequence[Trial]) -> bool:
    """Whether no trial was of this candidate."""
    decided = candidate.as_dict()
    return all(trial.choice != decided for trial in trials)
