from __future__ import annotations

import math
import time

import numpy as np
import pytest

from assay.ci.gate.decision import Decision, Series, Settings, Verdict, decide
from assay.errors import UsageError


def _series(rng: np.random.Generator, rounds: int, *, slowdown: float = 0.0, noise: float = 0.01) -> Series:
    """A machine whose speed drifts, with heavy tails: Student's t with 3 degrees of freedom."""
    drift = 0.2 * np.sin(np.arange(rounds) / 7)
    base, head = (np.exp(drift + noise * rng.standard_t(3, rounds)) for _ in range(2))
    return Series(base=tuple(base.tolist()), head=tuple((head * (1 + slowdown)).tolist()))


def _only(series: Series, settings: Settings | None = None) -> Decision:
    return decide({"it": series}, settings)["it"]


@pytest.mark.parametrize(
    ("slowdown", "verdict"),
    [
        (0.3, Verdict.REGRESSION),
        (0.05, Verdict.REGRESSION),
        (0.0, Verdict.UNCHANGED),
        (-0.1, Verdict.IMPROVEMENT),
    ],
)
def test_what_is_clear_is_said(slowdown: float, verdict: Verdict) -> None:
    for seed in range(20):
        decision = _only(_series(np.random.default_rng(seed), 100, slowdown=slowdown))
        assert decision.verdict is verdict
        assert decision.finished
        assert decision.effect == pytest.approx(1 + slowdown, abs=0.03)
        assert decision.interval is not None
        assert decision.interval[0] <= decision.effect <= decision.interval[1]


def test_a_clear_case_ends_early_and_a_noisy_one_goes_on() -> None:
    rng = np.random.default_rng(0)
    clear = _only(_series(rng, 100, slowdown=0.3))
    assert clear.finished
    assert clear.rounds < 20
    noisy = _only(_series(rng, 20, slowdown=0.03, noise=0.2))
    assert noisy.verdict is Verdict.INCONCLUSIVE
    assert not noisy.finished
    spent = _only(_series(rng, 100, slowdown=0.03, noise=0.5))
    assert spent.verdict is Verdict.INCONCLUSIVE
    assert spent.finished


def test_too_few_rounds_decide_nothing() -> None:
    decision = _only(Series(base=(1.0, 1.0), head=(2.0, 2.0)))
    assert (decision.verdict, decision.finished) == (Verdict.INCONCLUSIVE, False)
    assert decision.effect == pytest.approx(2.0)
    assert decision.interval is None


def test_rounds_after_a_verdict_do_not_change_it() -> None:
    full = _series(np.random.default_rng(3), 100, slowdown=0.3)
    early = Series(base=full.base[:30], head=full.head[:30])
    # What comes later contradicts, so that looking at all of it at once would decide otherwise.
    late = Series(base=full.base[:30] + full.head[30:], head=full.head[:30] + full.base[30:])
    assert _only(early) == _only(full) == _only(late)


def test_a_last_look_spends_what_is_left() -> None:
    rng = np.random.default_rng(8)
    for _ in range(10):
        series = _series(rng, 29, noise=0.2)
        before, after = (decide({"it": series}, spent=spent)["it"] for spent in (False, True))
        assert before.verdict is Verdict.INCONCLUSIVE
        assert not before.finished
        assert (before.rounds, after.rounds) == (24, 29)
        assert after.finished
        assert before.interval is not None
        assert after.interval is not None
        assert math.log(after.interval[1] / after.interval[0]) < math.log(
            before.interval[1] / before.interval[0]
        )
    # What was decided before is not touched.
    clear = _series(rng, 29, slowdown=0.3)
    assert decide({"it": clear}, spent=True) == decide({"it": clear})
    # Few rounds that all agree are enough, if the level can be reached.
    few = Series(base=(1.0,) * 9, head=(1.5,) * 9)
    assert decide({"it": few}, spent=True)["it"].verdict is Verdict.REGRESSION
    fewer = decide({"it": Series(base=(1.0,) * 3, head=(1.5,) * 3)}, spent=True)["it"]
    assert (fewer.verdict, fewer.finished, fewer.interval) == (Verdict.INCONCLUSIVE, True, None)


def test_a_significant_but_small_change_is_no_regression() -> None:
    rng = np.random.default_rng(1)
    small = _series(rng, 100, slowdown=0.015, noise=0.002)
    decision = _only(small)
    assert decision.verdict is Verdict.UNCHANGED
    assert decision.interval is not None
    assert decision.interval[1] < 1.03
    # The same data against a finer threshold.
    assert _only(small, Settings(threshold=0.01)).verdict is Verdict.REGRESSION


def test_an_effect_below_the_least_is_not_claimed() -> None:
    series = _series(np.random.default_rng(5), 100, slowdown=0.02, noise=0.01)
    settings = Settings(equivalence_confidence=0.999999999, least_effect=1.0)
    decision = _only(series, settings)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.interval is not None
    assert decision.interval[0] > 1


def test_base_and_head_are_treated_alike() -> None:
    for seed in range(30):
        series = _series(np.random.default_rng(seed), 100, slowdown=0.05, noise=0.03)
        decision, other = _only(series), _only(Series(base=series.head, head=series.base))
        assert decision.interval is not None
        assert other.interval is not None
        assert other.interval == pytest.approx([1 / bound for bound in reversed(decision.interval)])
        mirrored = {Verdict.REGRESSION: Verdict.IMPROVEMENT}
        assert other.verdict is mirrored.get(decision.verdict, decision.verdict)


def test_an_unfit_machine_widens_claims() -> None:
    series = _series(np.random.default_rng(2), 12, slowdown=0.05, noise=0.005)
    fit, unfit = _only(series), _only(series, Settings(widening=6.0))
    assert fit.verdict is Verdict.REGRESSION
    assert unfit.verdict is Verdict.INCONCLUSIVE
    assert fit.interval is not None
    assert unfit.interval is not None
    widths = [math.log(high / low) for low, high in (fit.interval, unfit.interval)]
    assert widths[1] >= 5.9 * widths[0]
    assert unfit.effect == fit.effect


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["base", "head"])
def test_what_is_no_time_is_broken(bad: float, side: str) -> None:
    values = {"base": (1.0,) * 20, "head": (1.0,) * 20, side: (1.0,) * 7 + (bad,) + (1.0,) * 12}
    decision = _only(Series(**values))
    assert (decision.verdict, decision.finished) == (Verdict.BROKEN, True)
    assert f"The {side} took" in decision.reason
    assert "round 8" in decision.reason


@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_a_clock_that_jumps_is_broken(factor: float) -> None:
    decision = _only(Series(base=(1.0,) * 20, head=(*(1.0,) * 19, factor)))
    assert decision.verdict is Verdict.BROKEN
    assert "clock" in decision.reason
    # A head that takes so long in every round does not jump.
    assert _only(Series(base=(1.0,) * 20, head=(1e4,) * 20)).verdict is Verdict.REGRESSION


def test_missing_and_broken_are_told_apart() -> None:
    found = decide(
        {
            "new": Series(head=(1.0, 1.0)),
            "gone": Series(base=(1.0, 1.0)),
            "nothing": Series(),
            "crashed": Series(base=(1.0,), failure="The head was ended by SIGSEGV."),
            "uneven": Series(base=(1.0, 1.0), head=(1.0,)),
        }
    )
    assert list(found) == ["new", "gone", "nothing", "crashed", "uneven"]
    assert all(decision.finished for decision in found.values())
    assert [decision.verdict for decision in found.values()] == [Verdict.MISSING] * 3 + [Verdict.BROKEN] * 2
    assert found["new"].reason == "The base lacks it."
    assert found["gone"].reason == "The head lacks it."
    assert "SIGSEGV" in found["crashed"].reason


def test_identical_values_are_unchanged() -> None:
    decision = _only(Series(base=(1.0,) * 20, head=(1.0,) * 20))
    assert decision.verdict is Verdict.UNCHANGED
    assert decision.interval == (1.0, 1.0)


def test_false_alarms_over_many_benchmarks_are_bounded() -> None:
    """Signs as tosses of a coin, sizes that differ 100 times between stretches of time."""
    rng = np.random.default_rng(0)
    settings = Settings(confidence=0.9, max_rounds=40, least_effect=1e-6, equivalence_confidence=0.999999)
    runs, alarms = 200, 0
    for rounds in rng.integers(25, 41, runs).tolist():
        sizes = np.exp(rng.standard_normal((20, 40))) * np.where(np.arange(40) % 13 < 6, 1.0, 0.01)
        ratios = sizes * rng.choice([-1.0, 1.0], (20, 40))
        found = decide(
            {
                str(i): Series(base=(1.0,) * rounds, head=tuple(np.exp(row[:rounds] / 4)))
                for i, row in enumerate(ratios)
            },
            settings,
            spent=True,
        )
        verdicts = {decision.verdict for decision in found.values()}
        alarms += bool(verdicts & {Verdict.REGRESSION, Verdict.IMPROVEMENT})
    # 10% would be 20; 34 has a chance of one in a thousand.
    assert 0 < alarms <= 34


def test_one_change_among_many_is_found() -> None:
    rng = np.random.default_rng(4)
    series = {str(i): _series(rng, 60, noise=0.004) for i in range(200)}
    series["slow"] = _series(rng, 60, slowdown=0.05, noise=0.004)
    found = decide(series)
    changed = [name for name, decision in found.items() if decision.verdict is Verdict.REGRESSION]
    assert changed == ["slow"]


def test_each_change_found_leaves_more_of_the_error_to_the_rest() -> None:
    rng = np.random.default_rng(6)
    subtle = _series(rng, 40, slowdown=0.04, noise=0.018)
    clear = {str(i): _series(rng, 40, slowdown=0.5) for i in range(400)}
    same = {str(i): _series(rng, 40, noise=0.0001) for i in range(400)}
    helped, alone = (decide({**others, "it": subtle})["it"] for others in (clear, same))
    assert helped.interval is not None
    assert alone.interval is None or helped.interval[0] > alone.interval[0]


def test_thousands_of_benchmarks() -> None:
    rng = np.random.default_rng(7)
    series = {str(i): _series(rng, 40, noise=0.03) for i in range(3000)}
    start = time.thread_time()
    found = decide(series)
    print(f"{time.thread_time() - start:.2f} s of CPU time for 3000 benchmarks of 40 rounds")
    assert len(found) == 3000
    assert not {decision.verdict for decision in found.values()} & {Verdict.BROKEN, Verdict.MISSING}


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": math.nan},
        {"confidence": 1.0},
        {"equivalence_confidence": 0.1},
        {"widening": 0.5},
        {"least_effect": 0.0},
        {"first_look": 0},
        {"first_look": 61},
        {"growth": 1.0},
        {"jump": 0.5},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Settings(**wrong)  # type: ignore[arg-type]


def test_looks_end_with_the_last_round() -> None:
    assert Settings(first_look=10, max_rounds=30, growth=1.5).looks == (10, 15, 22, 30)
    assert Settings(first_look=5, max_rounds=5).looks == (5,)
    assert Settings(first_look=1, max_rounds=4, growth=1.01).looks == (1, 2, 3, 4)
