from __future__ import annotations

from collections import Counter
from pathlib import Path

from assay.ci.gate.processes import Contender, SideError
from assay.ci.gate.rounds import Pair, measure_rounds
from assay.ci.gate.turns import TurnRun

RUN = TurnRun(load_time=1.0, first_run_time=1.0, calls_per_sample=1, wall=(1.0,), cpu=(1.0,), peak_memory=1)


def pair(name: str) -> Pair:
    def contender(side: str) -> Contender:
        return Contender(
            python=Path("python"), artifact=Path(side) / name, inputs=Path("x.npz"), threads=1, cpus=(0,)
        )

    return Pair(base=contender("base"), head=contender("head"))


class Runner:
    """Stands in for the processes: notes the order, and fails as often as it is told."""

    def __init__(self, fail: int = 0) -> None:
        self.order: list[str] = []
        self.fail = fail
        self.seconds = 0.0

    def __call__(self, both, generator):
        self.order.append(both.head.artifact.name)
        self.seconds += 1.0
        if self.fail:
            self.fail -= 1
            raise SideError("head", "It fell over.")
        return RUN, RUN


def measure(runner, names="abc", undecided=None, **options):
    options = {"budget": 1e9, "seed": 0, "most_rounds": 5, **options}
    pairs = {name: pair(name) for name in names}
    return measure_rounds(
        pairs,
        undecided or (lambda runs: list(runs)),
        run_pair=runner,
        clock=lambda: runner.seconds,
        **options,
    )


def test_every_round_runs_all_in_random_order():
    runner = Runner()
    found = measure(runner, most_rounds=20)
    rounds = [tuple(runner.order[start : start + 3]) for start in range(3, 63, 3)]
    assert {frozenset(one) for one in rounds} == {frozenset("abc")}
    assert len(Counter(rounds)) > 3
    assert {len(runs.base) for runs in found.values()} == {20}


def test_the_order_follows_the_seed():
    orders = []
    for seed in (1, 1, 2):
        runner = Runner()
        measure(runner, seed=seed)
        orders.append(runner.order)
    assert orders[0] == orders[1] != orders[2]


def test_what_is_decided_runs_no_more():
    found = measure(Runner(), undecided=lambda runs: [name for name in runs if len(runs[name].base) < 2])
    assert {name: len(runs.base) for name, runs in found.items()} == {"a": 2, "b": 2, "c": 2}
    found = measure(Runner(), undecided=lambda runs: ["b"])
    assert {name: len(runs.base) for name, runs in found.items()} == {"a": 0, "b": 5, "c": 0}


def test_the_budget_ends_rounds_in_the_middle():
    runner = Runner()
    found = measure(runner, budget=5.0)
    assert len(runner.order) == 8
    assert sum(len(runs.base) for runs in found.values()) == 5
    assert all(len(runs.base) == len(runs.head) for runs in found.values())


def test_a_process_that_fails_once_is_run_again():
    found = measure(Runner(fail=1))
    assert all(runs.failed is None for runs in found.values())
    assert {len(runs.base) for runs in found.values()} == {5}


def test_one_that_fails_twice_is_not_run_any_more():
    found = measure(Runner(fail=2))
    assert found["a"].failed == ("head", "It fell over.")
    assert {name: len(runs.base) for name, runs in found.items()} == {"a": 0, "b": 5, "c": 5}
