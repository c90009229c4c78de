from __future__ import annotations

import datetime

import msgspec
import numpy as np
import pytest

from assay.ci.gate.builds import Build, Outcome
from assay.ci.gate.decision import Settings, Verdict
from assay.ci.gate.judge import Benchmark, Sampler, exact_rows, unbuilt_row, with_accepted
from assay.ci.gate.metrics import ExactMetric, SampledMetric, metrics
from assay.ci.gate.report import Status, status_of
from assay.ci.gate.rounds import Runs
from assay.ci.gate.settings_file import Accepted
from assay.ci.gate.turns import TurnRun

NET = Benchmark(model="net", threads=1)


def process_run(latency: float, memory: int | None = 50_000_000) -> TurnRun:
    return TurnRun(
        load_time=0.1,
        first_run_time=0.01,
        calls_per_sample=1,
        wall=(latency,),
        cpu=(latency,),
        peak_memory=memory,
    )


def runs_of(slowdown: float, *, rounds: int = 60, seed: int = 0, memory: int | None = 50_000_000) -> Runs:
    rng = np.random.default_rng(seed)
    base, head = np.exp(0.005 * rng.standard_normal((2, rounds)))
    return Runs(
        base=[process_run(value) for value in base.tolist()],
        head=[process_run(value * (1 + slowdown), memory) for value in head.tolist()],
    )


def rows_of(runs: Runs):
    sampler = Sampler([NET], Settings())
    return {row.metric: row for row in sampler.rows({NET.name: runs})}


def test_the_parts_of_the_error_add_up():
    shares = [metric.share for metric in metrics().values() if isinstance(metric, SampledMetric)]
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize(
    ("slowdown", "verdict", "status"),
    [
        (0.1, Verdict.REGRESSION, Status.REGRESSION),
        (0.0, Verdict.UNCHANGED, Status.PASSED),
        (-0.1, Verdict.IMPROVEMENT, Status.PASSED),
    ],
)
def test_a_slowdown_fails_and_an_improvement_does_not(slowdown, verdict, status):
    rows = rows_of(runs_of(slowdown))
    assert rows["latency"].verdict is verdict
    assert rows["latency"].ratio == pytest.approx(1 + slowdown, abs=0.01)
    assert len(rows["latency"].base_runs) == 60
    assert rows["peak_memory"].verdict is Verdict.UNCHANGED
    assert status_of(tuple(rows.values())) is status


def test_more_memory_fails():
    rows = rows_of(runs_of(0.0, memory=60_000_000))
    assert rows["peak_memory"].verdict is Verdict.REGRESSION
    assert rows["peak_memory"].fails


def test_memory_that_no_system_tells_has_no_row():
    assert set(rows_of(runs_of(0.0, memory=None))) == {"latency", "load_time"}


def test_rounds_go_on_until_latency_is_decided():
    sampler = Sampler([NET], Settings())
    assert list(sampler.undecided({NET.name: Runs()})) == [NET.name]
    assert list(sampler.undecided({NET.name: runs_of(0.0, rounds=5)})) == [NET.name]
    assert list(sampler.undecided({NET.name: runs_of(0.3, rounds=Settings().looks[5])})) == []


def test_rounds_go_on_while_memory_is_not_decided_or_loading_seems_slower():
    first, later = Settings().looks[0], Settings().looks[-1]
    grown = {rounds: runs_of(0.0, rounds=rounds, memory=60_000_000) for rounds in (first, later)}
    slow = runs_of(0.0, rounds=later)
    slow.head = [msgspec.structs.replace(run, load_time=0.15) for run in slow.head]
    slower = {rounds: Runs(base=slow.base[:rounds], head=slow.head[:rounds]) for rounds in (first, later)}
    for runs in (grown, slower):
        assert list(Sampler([NET], Settings()).undecided({NET.name: runs[first]})) == [NET.name]
        assert list(Sampler([NET], Settings()).undecided({NET.name: runs[later]})) == []
    assert rows_of(slow)["load_time"].verdict is Verdict.REGRESSION


def test_a_budget_that_is_spent_at_once_is_inconclusive():
    rows = rows_of(Runs())
    assert rows["latency"].verdict is Verdict.INCONCLUSIVE
    assert rows["latency"].base is None
    assert status_of(tuple(rows.values())) is Status.INCONCLUSIVE


@pytest.mark.parametrize(("side", "fails"), [("head", True), ("base", False)])
def test_what_does_not_run_is_broken_and_the_heads_fault_if_it_is_the_head(side, fails):
    rows = rows_of(Runs(failed=(side, "no such file")))
    assert list(rows) == ["latency"]
    assert rows["latency"].verdict is Verdict.BROKEN
    assert rows["latency"].fails is fails
    assert "no such file" in rows["latency"].reason


def test_clocks_that_jump_are_no_verdict_on_the_head():
    runs = runs_of(0.0)
    runs.head[3] = process_run(5000.0)
    row = rows_of(runs)["latency"]
    assert (row.verdict, row.fails, row.undecided) == (Verdict.BROKEN, False, True)


def exact(name: str, base: float | str, head: float | str):
    rows = exact_rows("net", {name: base}, {name: head})
    return rows[0] if rows else None


@pytest.mark.parametrize(
    ("name", "base", "head", "verdict"),
    [
        ("kernels", 30.0, 31.0, "regression"),
        ("kernels", 30.0, 29.0, "improvement"),
        ("instructions", 1e6, 1.009e6, "unchanged"),
        ("instructions", 1e6, 1.011e6, "regression"),
        ("artifact_size", 1e6, 1.1e6, "regression"),
        ("artifact_size", 1e6, 1.01e6, "unchanged"),
        ("workspace", 0.0, 0.0, "unchanged"),
        ("workspace", 0.0, 8192.0, "regression"),
        ("weights", 1e6, 1.01e6, "regression"),
        ("error", 0.1, 0.3, "regression"),
        ("error", 0.001, 0.01, "unchanged"),
        ("error", 0.3, 0.1, "unchanged"),
        ("cosine_distance", 1e-9, 1e-3, "regression"),
        ("cosine_distance", 0.0, 1e-9, "unchanged"),
        ("compile_time", 10.0, 14.0, "regression"),
        ("compile_time", 1.0, 2.0, "unchanged"),
        ("kernels", "No ELF file.", 31.0, "missing"),
        ("error", 0.1, "Nothing was compared.", "missing"),
        ("error", float("nan"), 0.1, "broken"),
        ("artifact_size", 1e6, -1.0, "broken"),
        ("error", 0.1, float("inf"), "broken"),
    ],
)
def test_exact_figures_are_judged_by_their_own_rules(name, base, head, verdict):
    assert exact(name, base, head).verdict.value == verdict


def test_a_figure_that_the_head_lost_fails_and_one_that_it_gained_does_not():
    assert exact("error", 0.1, "Nothing was compared.").fails
    assert not exact("error", "Nothing was compared.", 0.1).fails
    assert exact("error", "a", "b") is None


def test_a_figure_of_the_head_that_cannot_be_fails():
    assert exact("error", 0.1, float("nan")).fails
    assert not exact("error", float("nan"), 0.1).fails


def test_every_exact_metric_allows_what_is_equal():
    for metric in metrics().values():
        if isinstance(metric, ExactMetric):
            assert exact(metric.name, 5.0, 5.0).verdict is Verdict.UNCHANGED


BUILT = Build(outcome=Outcome.BUILT)
BROKEN = Build(outcome=Outcome.BROKEN, reason="It does not.")
ABSENT = Build(outcome=Outcome.MISSING, reason="No file.")


@pytest.mark.parametrize(
    ("base", "head", "verdict", "fails"),
    [
        (BUILT, BROKEN, "broken", True),
        (BUILT, ABSENT, "missing", True),
        (ABSENT, BUILT, "missing", False),
        (BROKEN, BUILT, "broken", False),
        (BROKEN, BROKEN, "broken", False),
        (BROKEN, ABSENT, "broken", False),
        (ABSENT, ABSENT, "missing", False),
    ],
)
def test_what_is_not_built_fails_where_the_base_was(base, head, verdict, fails):
    row = unbuilt_row(NET, base, head)
    assert (row.verdict.value, row.fails) == (verdict, fails)
    for side, build in (("base", base), ("head", head)):
        assert (f"The {side}" in row.reason) == (build is not BUILT)


def test_nothing_measured():
    assert status_of(()) is Status.NOTHING_MEASURED
    assert status_of((unbuilt_row(NET, ABSENT, BUILT),)) is Status.NOTHING_MEASURED
    assert Status.NOTHING_MEASURED.exit_code == 25


def accept(**changes):
    fields = {
        "benchmark": "net",
        "metric": "*",
        "limit": "20%",
        "reason": "Known",
        "author": "me",
        "expires": datetime.date(2030, 1, 1),
    }
    return Accepted(**{**fields, **changes})


def test_an_accepted_regression_does_not_fail_and_is_still_one(make_row):
    rows, notes = with_accepted([make_row("regression")], [accept()])
    assert rows[0].verdict is Verdict.REGRESSION
    assert rows[0].accepted == "Known (me, until 2030-01-01)"
    assert status_of(rows) is Status.PASSED
    assert notes == []


def test_one_beyond_its_limit_fails(make_row):
    rows, notes = with_accepted([make_row("regression")], [accept(limit="5%")])
    assert status_of(rows) is Status.REGRESSION
    assert notes == ["No change needs the acceptance of * of net."]


def test_the_first_acceptance_that_allows_it_counts(make_row):
    rows, notes = with_accepted([make_row("regression")], [accept(limit="5%"), accept(benchmark="n*")])
    assert rows[0].accepted
    assert len(notes) == 1


def test_a_benchmark_that_vanished_may_be_accepted():
    row = unbuilt_row(NET, BUILT, ABSENT)
    rows, _ = with_accepted([row], [accept(verdict="missing", limit=None)])
    assert not rows[0].fails


def test_thousands_of_benchmarks_are_judged():
    one = runs_of(0.0, rounds=5)
    benchmarks = [Benchmark(model=f"net{number}", threads=1) for number in range(2000)]
    rows = Sampler(benchmarks, Settings()).rows({each.name: one for each in benchmarks})
    assert [row.benchmark for row in rows[::3]] == [each.name for each in benchmarks]
    assert status_of(tuple(rows)) is Status.INCONCLUSIVE
