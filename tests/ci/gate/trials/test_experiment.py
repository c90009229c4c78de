from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.ci.gate.trials import experiment
from assay.ci.gate.trials.experiment import GateRun, Measured, gate_run, plan_of
from assay.ci.gate.trials.lines import append_line, read_lines
from assay.ci.gate.trials.subjects import PLANTED, SLOWDOWNS, build_subjects
from assay.ci.gate.trials.summary import summarize


def test_two_in_three_gate_runs_are_of_identical_code() -> None:
    plans = [plan_of(number) for number in range(120)]
    planted = [slowdown for slowdown, _ in plans]
    assert planted.count(0.0) == 80
    assert [planted.count(slowdown) for slowdown in SLOWDOWNS] == [10, 10, 10, 10]
    assert 15 < sum(with_load for _, with_load in plans) < 50
    assert plans == [plan_of(number) for number in range(120)]


@pytest.mark.parametrize("part", ["", "2", "0/2", "3/2", "a/b"])
def test_a_part_is_checked(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        experiment.main(["run", str(tmp_path / "runs"), "--builds", str(tmp_path), "--part", part])
    assert "not of the form 2/3" in capsys.readouterr().err


def test_parts_share_the_gate_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number is of one part, also when a part goes on where it was."""
    monkeypatch.setattr(experiment, "build_subjects", lambda folder: [])
    monkeypatch.setattr(experiment, "gate_run", lambda subjects, number: _gate_run(number, 0.0, "", ""))
    for part in ("1/2", "2/2"):
        for count in ("2", "3"):
            path = str(tmp_path / part[0])
            assert experiment.main(["run", path, "--builds", "", "--count", count, "--part", part]) == 0
    numbers = [[run.number for run in read_lines(tmp_path / name, GateRun)] for name in "12"]
    assert numbers == [[0, 2, 4], [1, 3, 5]]


def _measured(verdict: str, ratio: float) -> Measured:
    return Measured(
        base_cpu=(1.0,) * 12,
        head_cpu=(ratio,) * 12,
        base_wall=(2.0,) * 12,
        head_wall=(2.0 * ratio,) * 12,
        verdict=verdict,
        finished=True,
        rounds=12,
        effect=ratio,
        interval=None,
    )


def _gate_run(number: int, slowdown: float, planted: str, other: str, **more: object) -> GateRun:
    benchmarks = {PLANTED: _measured(planted, 1 + slowdown), "other": _measured(other, 1.0)}
    fields = {"loaded": False, "start": 0.0, "seconds": 10.0 + number, "load": 1.0}
    return GateRun(
        number=number,
        slowdown=slowdown,
        max_rounds=60,
        budget=60.0,
        benchmarks=benchmarks,
        **{**fields, **more},  # type: ignore[arg-type]
    )


def test_the_summary_tells_false_alarms_from_what_was_planted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        _gate_run(0, 0.0, "unchanged", "unchanged"),
        _gate_run(1, 0.0, "regression", "unchanged", loaded=True),
        _gate_run(2, 0.05, "regression", "unchanged"),
        _gate_run(3, 0.05, "regression", "regression"),
        _gate_run(4, 0.05, "inconclusive", "improvement"),
    ]
    arms = {arm.name: arm for arm in summarize(runs).arms}
    same, slowed = arms["identical"], arms["5% slower"]
    assert (same.false_alarms.count, same.false_alarms.total, same.caught) == (1, 2, None)
    assert arms["identical, load generator"].false_alarms.count == 1
    assert arms["identical, without"].false_alarms.count == 0
    assert slowed.caught is not None
    assert (slowed.caught.count, slowed.caught.total) == (2, 3)
    assert (slowed.false_alarms.count, slowed.false_improvements.count) == (1, 1)
    assert slowed.measured == pytest.approx(1.05)
    assert slowed.seconds == (13.0, 14.0)
    for run in runs:
        append_line(tmp_path / ("first" if run.number < 2 else "second"), run)
    files = [str(tmp_path / "first"), str(tmp_path / "second")]
    assert experiment.main(["summary", *files, "-o", str(tmp_path / "summary.json")]) == 0
    assert "| 5% slower | 2/3: 66.7% " in capsys.readouterr().out
    assert json.loads((tmp_path / "summary.json").read_text())["wall"]["total"] == 2
    assert experiment.main(["summary", str(tmp_path / "none")]) == 1


@pytest.mark.slow
def test_a_real_gate_run(tmp_path: Path) -> None:
    """A kernel with 30% planted, through to a decision; then the file goes on where it was."""
    number = next(number for number in range(100) if plan_of(number) == (0.3, False))
    subjects = build_subjects(tmp_path / "builds", cache=tmp_path / "cache", slowdowns=(0.3,), models=False)
    run = gate_run(subjects, number, most_rounds=12, budget=30.0)
    (measured,) = run.benchmarks.values()
    assert run.failures == ()
    assert len(measured.base_cpu) == len(measured.head_wall) >= 1
    # What it takes is for trials to tell; here, that what was measured has been decided on and is kept.
    assert measured.rounds <= len(measured.base_cpu)
    append_line(tmp_path / "runs", run)
    assert read_lines(tmp_path / "runs", GateRun) == [run]
