"""Wilcoxon's signed-rank test, inverted: exact tails, estimates and intervals of many series at once.

The statistic counts Walsh averages, the means of every pair of values, each value with itself included.
Counting those above a point tests that the values are symmetric about it (Tukey 1949); the median of all is
the estimate of Hodges and Lehmann (Annals of Mathematical Statistics 34, 1963), which a quarter of wild
values cannot spoil.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["critical_count", "tail", "walsh_averages"]

Array = npt.NDArray[np.float64]


@lru_cache(maxsize=512)
def tail(rounds: int) -> Array:
    """P(W <= w) for w = 0 .. n(n+1)/2, where W sums a random half of the ranks 1 .. n; ``rounds`` is n.

    Exact, by adding one rank after the other (Wilcoxon, Biometrics Bulletin 1, 1945). Read-only.
    """
    mass = np.zeros(rounds * (rounds + 1) // 2 + 1)
    mass[0] = 1.0
    for rank in range(1, rounds + 1):
        shifted = np.zeros_like(mass)
        shifted[rank:] = mass[:-rank]
        mass = (mass + shifted) / 2
    below: Array = np.cumsum(mass)
    below.flags.writeable = False
    return below


def critical_count(rounds: int, level: float) -> int:
    """The largest w with P(W <= w) <= ``level``; -1 where there is none, even if all signs agree."""
    return int(np.searchsorted(tail(rounds), level, side="right")) - 1


def walsh_averages(values: Array) -> Array:
    """Means of all pairs of each row, in no order: (m, n) to (m, n(n+1)/2)."""
    first, second = np.triu_indices(values.shape[1])
    averages: Array = (values[:, first] + values[:, second]) / 2
    return averages
