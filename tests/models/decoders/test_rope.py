"""Rotary tables beside their formulas, and scalings beside what they promise at either end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from assay.errors import ModelError
from assay.models.decoders.rope import Llama3Scaling, Rope, RopeFactors, YarnScaling, rotary_tables


def waves(rope: Rope) -> list[float]:
    """Angle by which each pair of elements turns from one position to the next."""
    cos, sin = rotary_tables(rope, 2)
    return [math.atan2(s, c) for c, s in zip(cos[1], sin[1], strict=True)]


def test_angles_are_those_of_the_paper() -> None:
    cos, sin = rotary_tables(Rope(theta=10000.0, dim=8), 5)
    assert cos.shape == sin.shape == (5, 4)
    assert cos.dtype == sin.dtype == np.float32
    for position in range(5):
        for pair in range(4):
            angle = position / 10000 ** (2 * pair / 8)
            assert cos[position, pair] == pytest.approx(math.cos(angle), abs=1e-6)
            assert sin[position, pair] == pytest.approx(math.sin(angle), abs=1e-6)


def test_linear_scaling_divides_positions() -> None:
    plain, _ = rotary_tables(Rope(theta=100.0, dim=8), 5)
    scaled, _ = rotary_tables(Rope(theta=100.0, dim=8, linear_factor=4.0), 17)
    np.testing.assert_allclose(scaled[::4], plain, atol=1e-6)


def test_factors_divide_frequencies_one_by_one() -> None:
    plain = waves(Rope(theta=100.0, dim=8))
    factors = (1.0, 2.0, 4.0, 8.0)
    expected = [wave / factor for wave, factor in zip(plain, factors, strict=True)]
    assert waves(Rope(theta=100.0, dim=8, scaling=RopeFactors(factors=factors))) == pytest.approx(expected)
    cos, _ = rotary_tables(Rope(theta=100.0, dim=8), 2, np.array(factors, np.float32))
    np.testing.assert_allclose(cos[1], np.cos(expected), atol=1e-6)


def test_llama3_keeps_short_waves_and_slows_long_ones() -> None:
    plain = waves(Rope(theta=500000.0, dim=64))
    scaling = Llama3Scaling(
        factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context=8192
    )
    scaled = waves(Rope(theta=500000.0, dim=64, scaling=scaling))
    for before, after in zip(plain, scaled, strict=True):
        turns = 8192 * before / (2 * math.pi)
        if turns > 4:
            assert after == pytest.approx(before, rel=1e-5)
        elif turns < 1:
            assert after == pytest.approx(before / 8, rel=1e-5)
        else:
            share = (turns - 1) / 3
            assert after == pytest.approx((1 - share) * before / 8 + share * before, rel=1e-4)


def test_yarn_keeps_short_waves_and_slows_long_ones() -> None:
    plain = waves(Rope(theta=10000.0, dim=64))
    rope = Rope(theta=10000.0, dim=64, scaling=YarnScaling(factor=4.0, original_context=4096), magnitude=1.1)
    cos, sin = rotary_tables(rope, 2)
    np.testing.assert_allclose(cos[0], np.float32(1.1))
    np.testing.assert_allclose(np.hypot(cos[1], sin[1]), 1.1, rtol=1e-6)
    ratios = [after / before for before, after in zip(plain, waves(rope), strict=True)]
    assert ratios[0] == pytest.approx(1, rel=1e-5)
    assert ratios[-1] == pytest.approx(0.25, rel=1e-5)
    assert all(after <= before + 1e-6 for before, after in itertools.pairwise(ratios))


@pytest.mark.parametrize("values", [{"theta": 1.0}, {"theta": -5.0}, {"theta": 10.0, "linear_factor": 0.0}])
def test_numbers_that_give_no_angles_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="Rotary embeddings need"):
        Rope(dim=8, **values)  # type: ignore[arg-type]
