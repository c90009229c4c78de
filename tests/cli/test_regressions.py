from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from assay.cli import results_place
from assay.cli.commands import results
from assay.results.record import read_records
from assay.results.synthetic import SyntheticHistory, make_history


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> SyntheticHistory:
    return make_history(tmp_path_factory.mktemp("history") / "repository")


@pytest.fixture
def here(history: SyntheticHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SyntheticHistory:
    """The history, in whose repository commands run, with a cache of their own."""
    monkeypatch.chdir(history.repository)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ASSAY_RESULTS", "results/runs")
    monkeypatch.setenv("COLUMNS", "250")
    return history


def test_regressions_are_listed_with_commit_and_size(cli, here):
    shown = cli("regressions").stdout
    for step in here.steps:
        worse = (step.ratio < 1) == (step.key.metric == "decode")
        assert (step.commit[:10] in shown) == worse
    assert "Improvements" not in shown
    everything = cli("regressions", "--all").stdout
    assert all(step.commit[:10] in everything for step in here.steps)
    assert "+1.2%" in everything
    assert "Change the kernels, 21 of 30" in everything
    assert "91.2 MB" in everything


def test_json_has_every_field(cli, here):
    report = cli.json("regressions", "--metric", "latency", "--model", "resnet18", "--since", "2026-01-15")
    (shift,) = report["regressions"]
    assert shift["commit"] == here.commits[12]
    assert shift["key"]["metric"] == "latency"
    assert shift["ratio"] == pytest.approx(1.06, abs=0.012)
    assert report["judged"] == 3
    assert [shift["commit"] for shift in report["improvements"]] == [here.commits[21]]


def test_a_peer_is_a_series_of_its_own(cli, here):
    assert "No regression in 3 series." in cli("regressions", "--engine", "onnxruntime").stdout


def test_failing_has_a_code_of_its_own(cli, here):
    assert "are 5 regressions" in cli("regressions", "--fail", code=30).stderr
    cli("regressions", "--fail", "--metric", "ttft")
    cli("regressions", "--fail", "--since", "2026-03-01")
    cli("regressions", "--fail", "--threshold", "20%")


def test_nothing_to_judge_is_told(cli, here):
    error = cli.error("regressions", "--model", "none", code=25)
    assert "no records" in error["message"]
    short = here.results.parent / "short"
    short.mkdir()
    first = sorted(here.results.iterdir())[0]
    shutil.copy(first, short)
    assert "None of 10 series" in cli("regressions", "--results", short, code=25).stderr
    shutil.rmtree(short)


def test_what_is_left_out_is_told(cli, here, tmp_path):
    results = tmp_path / "runs"
    shutil.copytree(here.results, results)
    for number in range(7):
        (results / f"foreign-{number}.json").write_text("{}")
    shown = cli("regressions", "--results", results)
    assert "foreign-0.json" in shown.stderr
    assert "2 more" in shown.stderr
    assert len(cli.json("regressions", "--results", results)["left_out"]) == 7


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--metric", "latenzy"), 3, "There is no metric named 'latenzy'."),
        (("--since", "yesterday"), 2, "is no time"),
        (("--since", "99999999999999d"), 2, "is no time"),
        (("--threshold", "fast"), 2, "is no percentage"),
        (("--threshold", "-3%"), 2, "is no percentage"),
        (("--threshold", "nan"), 2, "is no percentage"),
        (("--branch", "no-such-branch"), 2, "cannot be read"),
        (("--results", "no-such-folder"), 2, "There is no folder"),
        (("--results", "mysql://host/base"), 2, "cannot be kept in mysql"),
        (("--results", "sqlite:////no-such-folder/base.sqlite"), 31, "unable to open"),
    ],
)
def test_bad_input_is_one_clear_error(cli, here, arguments, code, message):
    assert message in cli.error("regressions", *arguments, code=code)["message"]


def test_records_are_pushed_once(cli, here, tmp_path):
    url = f"sqlite:///{tmp_path / 'team.sqlite'}"
    count = sum(len(read_records(path)) for path in here.results.iterdir())
    files = sorted(here.results.iterdir())
    assert "13 records added, 0 were" in cli("results", "push", url, files[0]).stdout
    pushed = cli.json("results", "push", url, here.results)
    assert pushed == {"new": count - 13, "known": 13, "left_out": []}
    assert len(cli.json("regressions", "--results", url)["regressions"]) == 5


def test_a_push_tells_what_it_leaves_out(cli, here, tmp_path):
    results = tmp_path / "runs"
    shutil.copytree(here.results, results)
    (results / "foreign.json").write_text("[1]")
    url = f"sqlite:///{tmp_path / 'team.sqlite'}"
    shown = cli("results", "push", url, results, code=15)
    assert "390 records added" in shown.stdout
    assert "foreign.json" in shown.stderr
    assert "is no URL" in cli.error("results", "push", results, code=2)["message"]


def test_what_asv_kept_is_read_and_pushed_where_no_place_is_named(cli, here, tmp_path, monkeypatch):
    monkeypatch.delenv("ASSAY_RESULTS")
    monkeypatch.setattr(results_place, "default_results", lambda: tmp_path / "results" / "runs")
    monkeypatch.setattr(results, "default_results", lambda: tmp_path / "results" / "runs")
    folder = tmp_path / "results" / "asv" / "vm"
    folder.mkdir(parents=True)
    (folder.parent / "benchmarks.json").write_text("{}")
    (folder / "machine.json").write_text('{"arch": "x86_64", "cpu": "A CPU", "os": "Linux"}')
    for place, commit in enumerate(here.commits):
        size = 1000.0 if place < 15 else 2000.0
        params = [["'tiny'"], ["'native'"], ["'default'"], ["'release'"]]
        content = {
            "version": 2, "commit_hash": commit, "env_name": "overlay-py3.11",
            "date": 1_700_000_000_000 + place, "python": "3.11", "result_columns": ["result", "params"],
            "results": {"artifact.Sizes.track_size": [[size], params]},
        }  # fmt: skip
        (folder / f"{commit[:8]}-overlay-py3.11.json").write_text(json.dumps(content))
    (shift,) = cli.json("regressions")["regressions"]
    assert (shift["commit"], shift["ratio"], shift["key"]["model"]) == (here.commits[15], 2.0, "tiny")
    url = f"sqlite:///{tmp_path / 'team.sqlite'}"
    assert cli.json("results", "push", url) == {"new": 30, "known": 0, "left_out": []}
    assert cli.json("results", "push", url) == {"new": 0, "known": 30, "left_out": []}
