from __future__ import annotations

import pytest

from assay.ci.gate.trials.tally import proportion


def test_exact_intervals() -> None:
    """The rule of three, exact: no event in 300 has the upper bound 1 - 0.025 ** (1 / 300)."""
    none = proportion([False] * 300)
    assert (none.count, none.total, none.low) == (0, 300, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 300))
    half = proportion([True, False] * 5)
    assert (half.low, half.high) == pytest.approx((0.1871, 0.8129), abs=1e-4)  # printed tables
    assert str(half) == "5/10: 50.0% (18.7% to 81.3%)"


def test_of_nothing_everything_is_possible() -> None:
    nothing = proportion([])
    assert (nothing.low, nothing.high) == (0, 1)
    assert str(nothing) == "-"
