from __future__ import annotations

import numpy as np
import pytest

from assay.compile.schedules.step_order import order_steps


@pytest.mark.parametrize("deviation", [3, 12, 20, 40])
def test_every_step_is_taken_once_and_no_sum_saturates(deviation: int) -> None:
    generator = np.random.default_rng(deviation)
    normal = generator.standard_normal((3, 45, 16, 4)) * deviation
    panels = np.clip(np.rint(normal), -64, 64).astype(np.int8)
    found = order_steps(panels)
    assert all(sorted(order) == list(range(45)) for order in found.order.tolist())
    assert sum(size * count for size, count in found.sizes) == 45
    for panel, ordered, order in zip(panels, found.panels, found.order, strict=True):
        np.testing.assert_array_equal(ordered, panel[order])
        first = 0
        for size, count in found.sizes:
            for _ in range(count):
                together = ordered[first : first + size].astype(np.int32).reshape(size, 16, 2, 2)
                first += size
                # The largest and the smallest sum that any uint8 activations can give.
                assert 255 * np.maximum(together, 0).sum((0, 3)).max() <= 32767
                assert 255 * np.minimum(together, 0).sum((0, 3)).min() >= -32768


def test_small_weights_go_together() -> None:
    panels = np.ones((2, 10, 8, 4), np.int8)
    assert order_steps(panels).sizes == ((3, 3), (1, 1))
    assert order_steps(panels, (4, 3, 2)).sizes == ((4, 2), (1, 2))


def test_large_weights_stay_alone() -> None:
    found = order_steps(np.full((1, 5, 8, 4), 64, np.int8))
    assert found.sizes == ((1, 5),)
