from __future__ import annotations

import pytest

from assay.ci.gate.spending import spend


def test_all_of_the_error_is_spent() -> None:
    assert spend((10, 20, 40), 0.05) == pytest.approx((0.25, 0.25, 0.5))
    assert spend((10, 20, 40), 0.05, 2.0) == pytest.approx((1 / 16, 3 / 16, 3 / 4))


def test_a_look_that_cannot_reject_spends_nothing() -> None:
    # 2 ** -10 is 0.00098: more than a quarter of 0.001.
    assert spend((10, 20, 40), 0.001) == pytest.approx((0.0, 0.5, 0.5))


def test_no_look_can_reject_at_a_level_out_of_reach() -> None:
    assert spend((2, 4), 0.001) == (0.0, 0.0)
