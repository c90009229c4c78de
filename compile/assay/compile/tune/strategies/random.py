"""Every candidate, in a random order that the number of trials repeats."""

from __future__ import annotations

import random
from collections.abc import Sequence

from assay.compile.schedules.choices import Choice
from assay.compile.tune.journal import Trial
from assay.compile.tune.space import Space
from assay.compile.tune.strategies.strategy import Strategy, untried

__all__ = ["STRATEGY"]


def _propose(space: Space, trials: Sequence[Trial]) -> Choice | None:
    left = [candidate for candidate in space.grid() if untried(candidate, trials)]
    return random.Random(len(trials)).choice(left) if left else None


STRATEGY = Strategy(name="random", description="every candidate, in a random order", propose=_propose)
