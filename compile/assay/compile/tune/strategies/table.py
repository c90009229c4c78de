"""The short table: the usual tiles, and the analytic choice with one thing changed."""

from __future__ import annotations

from collections.abc import Sequence

from assay.compile.schedules.choices import Choice
from assay.compile.tune.journal import Trial
from assay.compile.tune.space import Space
from assay.compile.tune.strategies.strategy import Strategy, untried

__all__ = ["STRATEGY"]


def _propose(space: Space, trials: Sequence[Trial]) -> Choice | None:
    return next((candidate for candidate in space.table() if untried(candidate, trials)), None)


STRATEGY = Strategy(name="table", description="the usual tiles, one change at a time", propose=_propose)
