"""The command around asv: what it counts, and when it fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from assay.ci import asv_run
from assay.errors import NothingMeasuredError

SUITES = {
    "good": "def track_one():\n    return 1.0\n",
    "skipped": "def setup():\n    raise NotImplementedError('no such device')\n\n"
    "def track_two():\n    return 2\n",
    "unasked": "class C:\n    params = ([], [1])\n\n    def track_four(self, a, b):\n        return 1\n",
    "broken": "def track_three(number):\n    return 1 / number\n\n\ntrack_three.params = [0, 1]\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with suites that measure, skip and fail; the current folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "project"
    (folder / "suites").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(folder)
    (folder / "suites" / "__init__.py").write_text("")
    for name, code in SUITES.items():
        (folder / "suites" / f"{name}.py").write_text(code)
    configuration = {"version": 1, "repo": ".", "benchmark_dir": "suites", "environment_type": "existing"}
    (folder / "asv.conf.json").write_text(json.dumps({**configuration, "project": "p"}))
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    return folder


def measure(*benchmarks: str) -> list[str]:
    chosen = [word for name in benchmarks for word in ("--bench", name)]
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return ["run", "--quick", "--launch-method", "spawn", "--set-commit-hash", head.stdout.strip(), *chosen]


def test_suites_are_counted_and_asvs_code_kept(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert asv_run.main(measure("good")) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "good: 1 measured, 0 skipped, 0 failed"
    assert asv_run.main(measure("broken", "unasked")) == 2
    assert capfd.readouterr().out.splitlines()[-1] == "broken: 1 measured, 0 skipped, 1 failed"


def test_a_suite_that_measured_nothing_fails(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert asv_run.main(measure("good", "skipped")) == NothingMeasuredError.exit_code == 25
    shown = capfd.readouterr()
    assert "skipped: 0 measured, 1 skipped, 0 failed" in shown.out
    assert "no such device" in shown.out
    assert "Nothing was measured by skipped." in shown.err
    # What an earlier run measured does not count for this one.
    assert asv_run.main(measure("no such benchmark")) == 25
    assert "Nothing was measured by any suite." in capfd.readouterr().err


@pytest.mark.slow
def test_results_that_asv_does_not_keep_are_told_of(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert asv_run.main(["run", "--quick", "--bench", "good"]) == 25
    assert "--set-commit-hash" in capfd.readouterr().err


@pytest.mark.slow
def test_other_verbs_pass_through(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert asv_run.main(["run", "--help"]) == 0
    assert "usage: asv run" in capfd.readouterr().out
    # Benchmarks with no value of a parameter fail asv's own check.
    (project / "suites" / "unasked.py").unlink()
    assert asv_run.main(["check", "-E", "existing"]) == 0


def test_a_folder_without_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert asv_run.main([]) == 2
    assert "asv cannot be run here" in capsys.readouterr().err
    assert asv_run.main(["--config", "mine.json", "run"]) == 2
    assert "mine.json" in capsys.readouterr().err


def test_damaged_results_count_as_none(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    for name, content in {"a": "[", "b": "[]", "c": '{"results": 1}', "d": '{"results": {}}'}.items():
        (folder / f"{name}.json").write_text(content)
    (folder / "machine.json").write_text("{}")
    (folder / "e.json").write_bytes(b"\xff\xfe")
    assert asv_run.read_results(tmp_path) == {}


def test_every_combination_of_parameters_counts() -> None:
    after = {
        ("f", "s.C.track"): {"started_at": 2, "result": [1.0, float("nan"), None, 0], "params": [["a"]]},
        ("f", "s.C.all_failed"): {"started_at": 2, "result": None, "params": [["a", "b"], ["1", "2", "3"]]},
        ("f", "s.C.earlier"): {"started_at": 1, "result": [1.0], "params": []},
        ("f", "u.unasked"): {"started_at": 2, "result": None, "params": [[], ["1"]]},
        ("f", "t.failed"): {"started_at": 2, "result": None, "params": []},
    }
    before = {("f", "s.C.earlier"): {"started_at": 1}, ("f", "s.C.track"): {"started_at": 1}}
    assert asv_run.outcomes(before, after) == [
        asv_run.Suite(name="s", measured=2, skipped=1, failed=7),
        asv_run.Suite(name="t", measured=0, skipped=0, failed=1),
    ]
