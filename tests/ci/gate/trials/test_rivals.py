from __future__ import annotations

import numpy as np
import pytest

from assay.ci.gate.trials.rivals import asv_finds_slower, t_test_finds_slower


def _runs(rng: np.random.Generator, count: int, *, between: float, factor: float = 1.0) -> list[list[float]]:
    """Processes that differ by ``between``, of 20 samples that differ by 1%."""
    return [
        (factor * np.exp(level + 0.01 * rng.standard_normal(20))).tolist()
        for level in between * rng.standard_normal(count)
    ]


@pytest.mark.parametrize("recorded", [True, False])
def test_asv_finds_what_is_above_its_factor(recorded: bool) -> None:
    rng = np.random.default_rng(0)
    base, same = (_runs(rng, 2, between=0.0) for _ in range(2))
    slower = _runs(rng, 2, between=0.0, factor=1.3)
    assert asv_finds_slower(base, slower, factor=1.1, recorded=recorded)
    assert not asv_finds_slower(slower, base, factor=1.1, recorded=recorded)
    assert not asv_finds_slower(base, same, factor=1.1, recorded=recorded)
    assert not asv_finds_slower(base, slower, factor=1.5, recorded=recorded)


def test_samples_of_processes_that_differ_deceive_the_t_test() -> None:
    rng = np.random.default_rng(1)
    alarms = sum(
        t_test_finds_slower(_runs(rng, 2, between=0.05), _runs(rng, 2, between=0.05), level=0.01)
        for _ in range(200)
    )
    assert alarms > 40
    honest = sum(
        t_test_finds_slower(_runs(rng, 2, between=0.0), _runs(rng, 2, between=0.0), level=0.01)
        for _ in range(200)
    )
    assert honest < 10


def test_the_t_test_with_a_threshold() -> None:
    rng = np.random.default_rng(2)
    base, slower = _runs(rng, 5, between=0.0), _runs(rng, 5, between=0.0, factor=1.02)
    assert t_test_finds_slower(base, slower, level=0.01)
    assert not t_test_finds_slower(base, slower, level=0.01, threshold=0.03)
