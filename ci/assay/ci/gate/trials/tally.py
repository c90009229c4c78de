"""How often something happened, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

__all__ = ["Proportion", "proportion"]

_CONFIDENCE = 0.95


class Proportion(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` of ``total``, with the 95% interval of Clopper and Pearson (Biometrika 26, 1934)."""

    count: int
    total: int
    low: float
    high: float

    def __str__(self) -> str:
        if not self.total:
            return "-"
        part = f"{self.count / self.total:.1%} ({self.low:.1%} to {self.high:.1%})"
        return f"{self.count}/{self.total}: {part}"


def proportion(happened: Iterable[bool]) -> Proportion:
    """Count what happened; of nothing, everything is possible."""
    from scipy.stats import binomtest

    found = list(happened)
    if not found:
        return Proportion(count=0, total=0, low=0.0, high=1.0)
    interval = binomtest(sum(found), len(found)).proportion_ci(_CONFIDENCE, method="exact")
    return Proportion(count=sum(found), total=len(found), low=float(interval.low), high=float(interval.high))
