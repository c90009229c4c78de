"""Ranges against what sorting the values gives, and against a plain form of the divergence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.compile.quantize.calibrators import (
    entropy_range,
    find_ranges,
    histograms,
    minmax_range,
    percentile_range,
)
from assay.errors import ModelError


def seen(values: Any) -> Any:
    parts = [{"x": part} for part in np.array_split(values.astype(np.float32), 5)]
    return histograms(parts, parts)["x"]


def by_definition(values: Any, bins: int = 2048, levels: int = 128) -> float:
    """The threshold of the least divergence, bin by bin."""
    largest = float(np.abs(values).max())
    counts, _ = np.histogram(np.abs(values), bins=bins, range=(0, largest))
    best, threshold = np.inf, 0.0
    for size in range(levels, bins + 1, 16):
        p = counts[:size].astype(float)
        p[-1] += counts[size:].sum()
        q = np.zeros(size)
        for level in range(levels):
            part = [i for i in range(size) if i * levels // size == level]
            filled = [i for i in part if counts[i]]
            for i in filled:
                q[i] = counts[part].sum() / len(filled)
        p, q = p / p.sum(), q / q.sum()
        floor = q[q > 0].min() * 1e-3
        divergence = sum(a * np.log(a / max(b, floor)) for a, b in zip(p, q, strict=True) if a)
        if divergence <= best:
            best, threshold = divergence, largest * size / bins
    return threshold


def test_minmax_is_what_was_seen() -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    assert minmax_range(seen(values)) == (values.min(), values.max())


@pytest.mark.parametrize("seed", [0, 1])
def test_percentile_leaves_out_a_hundred_thousandth(seed: int) -> None:
    values = np.random.default_rng(seed).standard_t(3, 400_000).astype(np.float32)
    low, high = percentile_range(seen(values))
    left = np.mean((values < low) | (values > high))
    assert left <= 1e-5
    width = float(values.max() - values.min()) / 2048
    ordered = np.sort(values)
    # Two values may be left out at each end; the range ends at the edge of a bin.
    assert ordered[0] < low <= ordered[2]
    assert ordered[-3] <= high + width
    assert high < ordered[-1]


def test_entropy_is_the_least_divergence() -> None:
    generator = np.random.default_rng(2)
    values = np.abs(np.concatenate([generator.standard_normal(20_000), [30.0]])).astype(np.float32)
    # Bins of magnitudes are bins of the values where none is negative and 0 was seen.
    values[0] = 0
    low, high = entropy_range(seen(values))
    assert low == 0
    assert high == pytest.approx(by_definition(values), rel=1e-3)
    assert high < 15


def test_no_range_is_wider_than_what_was_seen() -> None:
    values = np.random.default_rng(3).exponential(size=10_000).astype(np.float32)
    for calibrator in ("minmax", "percentile", "entropy"):
        (found,) = find_ranges({"x": seen(values)}, calibrator).values()
        assert values.min() <= found[0] < found[1] <= values.max()


@pytest.mark.parametrize("calibrator", ["minmax", "percentile", "entropy"])
@pytest.mark.parametrize("value", [0.0, -2.0, 3.0])
def test_one_value_is_a_range(calibrator: str, value: float) -> None:
    (found,) = find_ranges({"x": seen(np.full(10, value))}, calibrator).values()
    assert found == (value, value)


def test_integers_have_no_range_and_infinities_are_refused() -> None:
    integers = [{"i": np.arange(5)}]
    assert histograms(integers, integers) == {}
    infinite = [{"x": np.array([1, np.inf], np.float32)}]
    with pytest.raises(ModelError, match="'x' is not finite"):
        histograms(infinite, infinite)
