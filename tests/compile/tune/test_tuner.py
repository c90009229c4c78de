from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import assay.compile.tune.tuner as tuner
from assay.compile.schedules.choices import Choice, Workload, packed_matmul_workload
from assay.compile.targets import targets
from assay.compile.tune.measure import Measured
from assay.compile.tune.strategies import strategies
from assay.compile.tune.tuner import Question, TuneResult, tune
from assay.errors import UnknownNameError

TARGET = targets()["x86-64-v3"]
WORKLOAD = packed_matmul_workload(64, 64, 64)
Answer = Callable[[Choice], Measured]


class Worker:
    """Stands for the worker process: answers by rule, and counts."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Choice] = []

    def __call__(self, target: str, **options: Any) -> Worker:
        return self

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(
        self, workload: Workload, choice: Choice, baseline: Choice, threads: int, seconds: float
    ) -> Measured:
        self.asked.append(choice)
        return self.answer(choice)


def plain(choice: Choice) -> Measured:
    """One tile is much faster, all others are as fast as the baseline."""
    ratio = 1.4 if (choice.rows, choice.panel_width) == (5, 16) else 1.0
    return Measured(status="ok", ratio=ratio, low=ratio - 0.02, seconds=1.0, baseline_seconds=ratio)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[TuneResult, Worker]]:
    def run(
        answer: Answer = plain, questions: Sequence[Question] = (Question(workload=WORKLOAD),), **options: Any
    ) -> tuple[TuneResult, Worker]:
        worker = Worker(answer)
        monkeypatch.setattr(tuner, "Measurer", worker)
        options = {"budget": 60, "folder": tmp_path, **options}
        return tune(questions, TARGET, **options), worker

    return run


def test_the_fastest_candidate_is_confirmed_and_chosen(search: Any) -> None:
    result, worker = search()
    chosen = result.choices[WORKLOAD.key]
    assert (chosen.rows, chosen.panel_width) == (5, 16)
    assert worker.asked[-1] == chosen
    assert result.exhausted
    assert result.rejected == 0


def test_a_wrong_candidate_never_counts_however_fast(search: Any) -> None:
    def answer(choice: Choice) -> Measured:
        good = plain(choice)
        if good.ratio > 1:
            return Measured(status="wrong", ratio=9.0, low=8.0, error="differs from NumPy's by 1")
        return good

    result, _ = search(answer)
    assert result.choices == {}
    assert result.rejected == 1


def test_a_lucky_measurement_is_not_enough(search: Any) -> None:
    lucky: list[Choice] = []

    def answer(choice: Choice) -> Measured:
        good = plain(choice)
        if good.ratio > 1 and choice in lucky:
            return Measured(status="ok", ratio=1.0, low=0.98)
        lucky.append(choice)
        return good

    result, _ = search(answer)
    assert result.choices == {}


def test_nothing_is_tried_twice_after_an_interruption(search: Any) -> None:
    def interrupted(choice: Choice) -> Measured:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(choice)
        return plain(choice)

    seen: list[Choice] = []
    with pytest.raises(KeyboardInterrupt):
        search(interrupted)
    result, worker = search()
    assert not set(seen) & set(worker.asked[:-1])
    assert result.choices
    again, idle = search()
    assert idle.asked == []
    assert again.choices == result.choices


def test_time_that_is_up_ends_the_search(search: Any) -> None:
    result, worker = search(budget=0)
    assert worker.asked == []
    assert not result.exhausted


def test_the_heaviest_workload_comes_first(search: Any) -> None:
    questions = [
        Question(workload=packed_matmul_workload(8, 8, 8), weight=1),
        Question(workload=WORKLOAD, weight=9),
    ]
    result, worker = search(questions=questions)
    assert list(result.choices) == [WORKLOAD.key]
    assert worker.asked[0].panel_width is not None


@pytest.mark.parametrize("strategy", ["grid", "random", "bayesian"])
def test_strategies_go_on_where_the_table_ends(search: Any, strategy: str) -> None:
    pytest.importorskip("optuna")
    small = [Question(workload=packed_matmul_workload(2, 8, 16))]
    _, table = search(questions=small)
    result, more = search(questions=small, strategy=strategy)
    assert more.asked
    assert not set(table.asked) & set(more.asked)
    assert result.exhausted
    if strategy != "bayesian":
        assert len(set(table.asked) | set(more.asked)) >= 8


def test_an_unknown_strategy_is_told(search: Any) -> None:
    with pytest.raises(UnknownNameError, match="no strategy named 'gird'"):
        search(strategy="gird")


def test_the_registry_knows_every_strategy() -> None:
    assert list(strategies()) == ["table", "grid", "random", "bayesian"]
