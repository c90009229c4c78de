from __future__ import annotations

import json
import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from assay.ci.gate import run
from assay.ci.gate.report import BuildInfo, GateReport, gate_schema
from assay.ci.gate.repository import WORKTREE
from assay.results.record import read_records


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """In a repository of two commits and the branch ``main``: a function that runs git there."""
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.chdir(root)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "Somebody")
        monkeypatch.setenv(f"{name}_EMAIL", "somebody@example.org")
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)

    def git(*arguments: str) -> str:
        command = ["git", "-c", "commit.gpgsign=false", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    for number in range(2):
        Path("file").write_text(str(number))
        git("add", "--all")
        git("commit", "--quiet", "--message", "change")
    return git


class Gate:
    """Stands in for the run: keeps the plan, and gives a report."""

    def __init__(self, report: GateReport) -> None:
        self.report = report
        self.plans: list[run.GatePlan] = []

    def __call__(self, plan: run.GatePlan, progress: object) -> GateReport:
        self.plans.append(plan)
        return self.report


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, repository: object, make_report: Any, make_row: Any) -> Gate:
    found = Gate(make_report(make_row("unchanged")))
    monkeypatch.setattr(run, "run_gate", found)
    return found


def test_options_make_the_plan(cli, gate, repository):
    options = [
        "--models",
        "a,b",
        "--models",
        "c",
        "--threshold",
        "5%",
        "--confidence",
        "95%",
        "--budget",
        "9",
    ]
    options += [
        "--threads",
        "2",
        "--target",
        "x86-64-v2",
        "--scheme",
        "int8",
        "--size",
        "batch=2",
        "--seed",
        "3",
    ]
    cli("gate", "--base", "HEAD~1", *options, "--no-instructions")
    (plan,) = gate.plans
    assert (plan.base.commit, plan.head.commit) == (
        repository("rev-parse", "HEAD~1"),
        repository("rev-parse", "HEAD"),
    )
    assert plan.models == ("a", "b", "c")
    assert (plan.settings.threshold, plan.settings.confidence) == (0.05, 0.95)
    assert (plan.budget, plan.threads, plan.sizes, plan.seed) == (9.0, (2,), ("batch=2",), 3)
    assert (plan.build.target, plan.build.scheme, plan.build.profile) == ("x86-64-v2", "int8", "release")
    assert not plan.instructions


FILE = """
models = ["net.onnx"]
base = "HEAD~1"
threshold = "10%"
threads = [1, 2]
budget = 60.5
[[accept]]
benchmark = "net*"
metric = "latency"
limit = "10%"
reason = "Known."
author = "me"
expires = 2999-01-01
"""


def test_the_file_of_the_head_stands_behind_the_options(cli, gate, repository):
    Path("assay-gate.toml").write_text(FILE)
    repository("add", "--all")
    repository("commit", "--quiet", "--message", "gate")
    cli("gate", "--threshold", "2%")
    (plan,) = gate.plans
    assert plan.base.ref == "HEAD~1"
    assert (plan.models, plan.threads, plan.budget) == (("net.onnx",), (1, 2), 60.5)
    assert plan.settings.threshold == 0.02
    assert plan.accepted[0].reason == "Known."
    # That of a head that has none says nothing, whatever lies in the working tree.
    cli.error("gate", "--head", "HEAD~1", code=2)


def test_an_acceptance_that_expired_stops_the_gate(cli, gate):
    Path("assay-gate.toml").write_text(FILE.replace("2999", "1999"))
    error = cli.error("gate", code=2)
    assert "expired on 1999-01-01" in error["message"]
    assert gate.plans == []


def test_a_dirty_tree_says_what_is_measured(cli, gate):
    result = cli("gate", "--base", "HEAD~1", "--models", "a")
    assert "working tree" not in result.stderr
    Path("file").write_text("changed")
    result = cli("gate", "--base", "HEAD~1", "--models", "a")
    assert "1 file of the working tree is not committed: the working tree is measured." in result.stderr
    assert gate.plans[-1].head.worktree
    result = cli("gate", "--base", "HEAD~1", "--head", "HEAD", "--models", "a")
    assert "not committed, and not measured: the head is HEAD" in result.stderr
    assert not gate.plans[-1].head.worktree
    cli("gate", "--base", "HEAD~1", "--head", WORKTREE, "--models", "a")
    assert gate.plans[-1].head.dirty


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [(["regression"], 23), (["inconclusive"], 24), ([], 25), (["improvement", "unchanged"], 0)],
)
def test_the_exit_code_is_the_verdict(cli, gate, verdicts, code, make_report, make_row):
    gate.report = make_report(*(make_row(verdict) for verdict in verdicts))
    result = cli("gate", "--base", "HEAD", "--models", "a", code=code)
    assert "base: main (0123456789)" in result.stdout
    for verdict in verdicts:
        assert f"1 {verdict}" in result.stdout
    assert "its CPUs were busy" in result.stdout
    assert "A note." in result.stdout


def test_json_follows_the_published_schema(cli, gate, make_report, make_row):
    gate.report = make_report(make_row("regression"), make_row("unchanged", metric="kernels"))
    found = cli.json("gate", "--base", "HEAD", "--models", "a", code=23)
    jsonschema.Draft202012Validator(gate_schema()).validate(found)
    assert found["rows"][0]["ratio"] == 1.1


def test_files_for_others_are_written(cli, gate, tmp_path, make_report, make_row):
    gate.report = make_report(make_row("regression"))
    places = {name: tmp_path / f"gate.{name}" for name in ("junit", "markdown", "report")}
    options = [part for name, path in places.items() for part in (f"--{name}", path)]
    cli("gate", "--base", "HEAD", "--models", "a", *options, code=23)
    assert ET.parse(places["junit"]).getroot().get("failures") == "1"
    assert places["markdown"].read_text().startswith("### assay gate: Failed")
    assert json.loads(places["report"].read_text())["status"] == "regression"


def test_records_are_left_where_asked_for(cli, gate, tmp_path, make_report, make_row):
    runs = {"base_runs": (1.0, 2.0), "head_runs": (1.0, 2.0)}
    build = BuildInfo(
        side="head", model="net", name="net", weights="trained", artifact="sha256:0", target="x86-64-v3",
        scheme="f32", profile="release", sizes={}, figures={"artifact_size": 1000.0},
    )  # fmt: skip
    gate.report = msgspec.structs.replace(make_report(make_row("unchanged", **runs)), builds=(build,))
    result = cli("gate", "--base", "HEAD", "--models", "a", "--results", tmp_path / "runs")
    (path,) = (tmp_path / "runs").iterdir()
    assert f"records: {path}" in " ".join(result.stderr.split())
    found = {(record.metric, record.value, record.method) for record in read_records(path)}
    assert found == {("latency", 1.5, "gate"), ("artifact_size", 1000.0, "gate")}


def test_what_is_unchanged_is_shown_when_asked(cli, gate, make_report, make_row):
    rows = [make_row("unchanged"), make_row("unchanged", metric="kernels", threads=None, reason="None.")]
    gate.report = make_report(*rows)
    short = cli("gate", "--base", "HEAD", "--models", "a").stdout
    assert "kernels" not in short
    assert "1 more are unchanged" in short
    assert "kernels" in cli("gate", "--base", "HEAD", "--models", "a", "-v").stdout


def test_of_thousands_of_benchmarks_those_are_shown_that_changed(cli, gate, make_report, make_row):
    rows = [make_row("unchanged", benchmark=f"net-{number}", model=f"net-{number}") for number in range(3000)]
    gate.report = make_report(*rows, make_row("regression", benchmark="slow"))
    text = cli("gate", "--base", "HEAD", "--models", "a", code=23).stdout
    assert "slow" in text
    assert "3000 more are unchanged" in text
    assert len(text.splitlines()) < 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to compare with"),
        (["--base", "nowhere"], "There is no commit 'nowhere'"),
        (["--base", "HEAD", "--head", "nowhere"], "There is no commit 'nowhere'"),
        (["--base", "HEAD", "--threshold", "a lot"], "is no fraction"),
        (["--base", "HEAD", "--threshold", "0"], "threshold must be above"),
        (["--base", "HEAD", "--confidence", "200%"], "confidence must be"),
        (["--base", "HEAD", "--budget", "-1"], "--budget"),
    ],
)
def test_a_command_line_that_is_wrong(cli, gate, options, message):
    assert message in cli.error("gate", "--models", "a", *options, code=2)["message"]
    assert gate.plans == []


def test_a_folder_that_is_no_repository(cli, tmp_path, monkeypatch):
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path / "plain")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert "no git repository" in cli.error("gate", "--base", "HEAD", code=2)["message"]


def test_no_git_is_a_failure_of_the_machine(cli, repository, monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    assert "git cannot be started" in cli.error("gate", "--base", "HEAD", code=26)["message"]
