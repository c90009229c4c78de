from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from assay.ci.gate.decision import Settings
from assay.ci.gate.trials import simulate
from assay.ci.gate.trials.lines import append_line
from assay.ci.gate.trials.recorder import RecordedPair
from assay.ci.gate.trials.simulate import Outcome
from assay.ci.gate.turns import TurnRun


def _run(rng: np.random.Generator, level: float) -> TurnRun:
    samples = tuple(np.exp(level + 0.003 * rng.standard_normal(12)).tolist())
    return TurnRun(
        load_time=1.0, first_run_time=1.0, calls_per_sample=1, wall=samples, cpu=samples, peak_memory=None
    )


def _pool(count: int) -> list[RecordedPair]:
    """Processes that differ by 1% where they take turns, and by 10% where they do not."""
    rng = np.random.default_rng(0)
    return [
        RecordedPair(
            in_turn=(in_turn := number % 2 == 0),
            loaded=False,
            start=float(number),
            load=1.0,
            runs={
                name: tuple(_run(rng, (0.01 if in_turn else 0.1) * rng.standard_normal()) for _ in range(2))  # type: ignore[misc]
                for name in ("first", "second")
            },
        )
        for number in range(2 * count)
    ]


def test_rules_on_the_same_process_runs() -> None:
    outcomes = simulate.simulate(_pool(50), count=12, settings=Settings(max_rounds=30))
    found = {(one.rule, one.slowdown): one for one in outcomes}
    ours = [found["gate, in turn, CPU time", slowdown] for slowdown in simulate.SLOWDOWNS]
    assert all(one.false_alarms.count == 0 for one in ours)
    assert ours[0].caught is None
    caught = [one.caught.count for one in ours if one.caught is not None]
    assert caught[1:] == [12, 12, 12]
    assert caught == sorted(caught)
    clear, subtle = ours[-1], ours[1]
    assert clear.rounds is not None
    assert subtle.rounds is not None
    assert clear.rounds <= subtle.rounds <= 30
    # Samples are no processes: what differs by luck alone is called slower.
    assert found["t-test on samples", 0.0].false_alarms.count >= 3


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for pair in _pool(simulate.MOST_ROUNDS + 2):
        append_line(tmp_path / "pool", pair)
    output = tmp_path / "found.json"
    assert simulate.main([str(tmp_path / "pool"), "--count", "2", "-o", str(output)]) == 0
    found = json.loads(output.read_text())
    assert {one["rule"] for one in found} >= {"asv continuous", "t-test on samples"}
    assert set(found[0]) == set(Outcome.__struct_fields__)
    assert "| asv continuous | 30% | " in capsys.readouterr().out


def test_a_pool_that_is_too_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append_line(tmp_path / "pool", _pool(1)[0])
    assert simulate.main([str(tmp_path / "pool")]) == 2
    assert "1 pairs that took turns and 0 that did not" in capsys.readouterr().err
