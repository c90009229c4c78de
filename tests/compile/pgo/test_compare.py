from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from assay.compile.pgo.compare import Comparison, interleaved, judge
from assay.compile.pgo.workload import WorkloadCase

CASE = WorkloadCase(name="case", inputs={}, sizes={"n": 3}, count=2)


def verdict(gain: float, noise: float, count: int = 60, seed: int = 0) -> Comparison:
    generator = np.random.default_rng(seed)
    second = np.exp(generator.normal(0, noise, count))
    first = gain * np.exp(generator.normal(0, noise, count))
    return judge(list(zip(first.tolist(), second.tolist(), strict=True)), CASE, 1)


def test_a_gain_above_the_noise_counts() -> None:
    found = verdict(1.1, 0.02)
    assert found.faster
    assert not found.slower
    assert found.low < found.ratio < found.high
    assert (found.sizes, found.count) == ({"n": 3}, 2)


def test_a_loss_above_the_noise_counts() -> None:
    assert verdict(1 / 1.1, 0.02).slower
    assert not verdict(1 / 1.1, 0.02).faster


@pytest.mark.parametrize("seed", range(20))
def test_equal_code_is_not_called_faster(seed: int) -> None:
    assert not verdict(1.0, 0.02, seed=seed).faster


def test_few_pairs_decide_nothing() -> None:
    assert not verdict(1.03, 0.1, count=4).faster


def test_a_drift_of_the_machine_does_not_show() -> None:
    pairs = [(1.0 * drift, 1.0 * drift) for drift in np.linspace(1, 3, 50)]
    found = judge(pairs, CASE, 1)
    assert found.ratio == pytest.approx(1.0)
    assert not found.faster
    assert not found.slower


def test_functions_take_turns_and_change_their_order() -> None:
    order: list[str] = []

    def ticks() -> Iterator[float]:
        now = 0.0
        while True:
            now += 1.0
            yield now

    clock = ticks()
    pairs = interleaved(
        lambda: order.append("a"), lambda: order.append("b"), lambda: next(clock), seconds=1e-9
    )
    assert all(a > 0 and b > 0 for a, b in pairs)
    collapsed = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert abs(order.count("a") - order.count("b")) <= 1 + 1
    # a, b | b, a | a, b: neighbours of different pairs merge, so that turns alternate.
    assert len(collapsed) >= len(pairs)
