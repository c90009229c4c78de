from __future__ import annotations

import dataclasses
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import msgspec
import pytest
from rich.console import Console

from assay.errors import UsageError
from assay.results.commits import Commit, read_commits
from assay.results.history import find_shifts, levels_of
from assay.results.history_report import commits_of, history_schema, report_history, shift_table
from assay.results.record import read_records, records_schema, write_records
from assay.results.series import Filter, Point, Series, SeriesKey
from assay.results.store import open_store

SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"
START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = SeriesKey(
    model="tiny",
    sizes=(("batch", 1),),
    target="x86-64-v3",
    scheme="f32",
    profile="release",
    engine="assay",
    threads=1,
    metric="latency",
    machine="00000000",
)


def make_point(number, value, **changed):
    fields = {
        "commit": f"{number:040x}",
        "commit_time": START + timedelta(days=number),
        "branch": "main",
        "dirty": False,
        "time": START + timedelta(days=number, hours=1),
        "value": value,
        "interval": None,
        "rounds": 5,
        "run_id": f"run-{number}",
        "artifact": "sha256:0",
        "key": f"{number:064x}",
    }
    return Point(**{**fields, **changed})


def make_series(values, **changed):
    points = tuple(make_point(number, value) for number, value in enumerate(values))
    return Series(key=dataclasses.replace(KEY, **changed), unit="s", points=points)


@pytest.fixture(scope="module")
def store(synthetic_history, tmp_path_factory):
    database = tmp_path_factory.mktemp("cache") / "index.sqlite"
    with open_store(synthetic_history.results, database=database) as opened:
        yield opened


def test_the_planted_steps_are_found_and_nothing_else(synthetic_history, store):
    commits = read_commits(synthetic_history.repository)
    report = report_history(store, Filter(), commits)
    found = {(shift.key, shift.commit): shift for shift in (*report.regressions, *report.improvements)}
    assert found.keys() == {(step.key, step.commit) for step in synthetic_history.steps}
    for step in synthetic_history.steps:
        shift = found[step.key, step.commit]
        assert shift.ratio == pytest.approx(step.ratio, abs=0.012)
        assert shift.worse is ((step.ratio < 1) == (step.key.metric == "decode"))
        assert shift.unmeasured == 0
        assert shift.previous == synthetic_history.commits[synthetic_history.commits.index(step.commit) - 1]
        assert shift.subject == commits[synthetic_history.commits.index(step.commit)].subject
    assert report.unconfirmed == ()
    assert (report.judged, report.short, report.notes, report.left_out) == (13, 0, (), ())


def test_without_a_repository_times_order_the_commits(synthetic_history, store):
    report = report_history(store, Filter())
    found = {(shift.key, shift.commit) for shift in (*report.regressions, *report.improvements)}
    assert found == {(step.key, step.commit) for step in synthetic_history.steps}
    assert {shift.unmeasured for shift in report.regressions} == {None}
    stranger = Commit(hash="f" * 40, time=START, subject="Of another repository")
    assert report_history(store, Filter(), [stranger]) == report


def test_since_chooses_steps_and_not_what_they_are_judged_by(synthetic_history, store):
    everything = report_history(store, Filter())
    since = everything.regressions[1].at
    late = report_history(store, Filter(), since=since)
    assert late.regressions == everything.regressions[:2]
    assert late.judged == everything.judged


def test_the_report_follows_its_schema(store):
    report = json.loads(msgspec.json.encode(report_history(store, Filter())))
    assert report["regressions"]
    jsonschema.validate(report, history_schema())


@pytest.mark.parametrize(
    ("name", "schema", "module"),
    [
        ("records", records_schema, "assay.results.record"),
        ("regressions", history_schema, "assay.results.history_report"),
    ],
)
def test_checked_in_schemas_are_current(name, schema, module):
    path = SCHEMAS / f"{name}.schema.json"
    expected = json.dumps(schema(), indent=2, sort_keys=True) + "\n"
    assert path.read_text() == expected, f"stale; run: python -m {module} > docs/schema/{path.name}"


def test_files_of_records_follow_their_schema(synthetic_history):
    for path in sorted(synthetic_history.results.iterdir())[:2]:
        jsonschema.validate(json.loads(path.read_text()), records_schema())


def test_commits_between_two_measured_ones_are_counted():
    values = [1.0 + 0.001 * (number % 3) + 0.2 * (number >= 10) for number in range(20)]
    series = make_series(values)
    commits = [
        Commit(hash=f"{number:040x}" if half == 0 else f"{number:039x}x", time=START, subject="Change")
        for number in range(20)
        for half in (0, 1, 2)
    ]
    (shift,) = find_shifts([series], commits).shifts
    assert shift.commit == f"{10:040x}"
    assert shift.unmeasured == 2


def test_the_order_of_commits_counts_and_not_their_times():
    values = [1.0 + 0.001 * (number % 3) + 0.2 * (number >= 10) for number in range(20)]
    series = make_series(values)
    points = list(series.points)
    # The committer's clock ran a month behind for one commit.
    points[12] = dataclasses.replace(points[12], commit_time=START - timedelta(days=30))
    jumped = dataclasses.replace(series, points=tuple(sorted(points, key=lambda point: point.at)))
    commits = [Commit(hash=f"{number:040x}", time=START, subject="") for number in range(20)]
    (shift,) = find_shifts([jumped], commits).shifts
    assert shift.commit == f"{10:040x}"


def test_runs_of_one_commit_make_one_level():
    points = (make_point(0, 1.0), make_point(0, 3.0, time=START + timedelta(days=9)), make_point(1, 5.0))
    levels = levels_of(Series(key=KEY, unit="s", points=points))
    assert [(level.commit, level.value, len(level.points)) for level in levels] == [
        (f"{0:040x}", 2.0, 2),
        (f"{1:040x}", 5.0, 1),
    ]


def test_what_has_no_place_in_a_history_is_told():
    series = make_series([1.0] * 10)
    odd = (
        make_point(20, 9.0, commit=None),
        make_point(21, 9.0, dirty=True),
        make_point(22, 1.0, time=START),
        make_point(23, 1.0, time=START + timedelta(days=900)),
        make_point(2, 1.0, commit_time=START),
    )
    series = dataclasses.replace(series, points=(*series.points, *odd))
    now = START + timedelta(days=60)
    history = find_shifts([series], now=now)
    assert [level.commit for level in levels_of(series)][-2:] == [f"{22:040x}", f"{23:040x}"]
    assert history.shifts == ()
    text = "\n".join(history.notes)
    assert "1 record without a commit left out" in text
    assert "1 record measured on uncommitted changes left out" in text
    assert "measured before its commit was made: run-22" in text
    assert "dated in the future: run-23" in text
    assert f"dated differently by different records: {2:040x}"[:50] in text
    commits = [Commit(hash=f"{number:040x}", time=START, subject="") for number in range(10)]
    assert "2 commits of other branches left out" in "\n".join(find_shifts([series], commits, now=now).notes)


def test_short_series_are_counted_and_not_judged():
    history = find_shifts([make_series([1.0, 2.0, 3.0]), make_series([1.0] * 8, model="other")])
    assert (history.shifts, history.judged, history.short) == ((), 1, 1)


def test_sizes_that_are_mostly_the_same_are_exact():
    sizes = [1000.0] * 9 + [1004.0]
    (shift,) = find_shifts([make_series(sizes, metric="artifact_size")]).shifts
    assert shift.confirmed
    assert shift.ratio == pytest.approx(1.004)
    jittering = [1000.0 + 9 * (number % 2) for number in range(20)]
    assert find_shifts([make_series(jittering, metric="artifact_size")]).shifts == ()


def test_what_else_changed_is_named(tmp_path, synthetic_history):
    step = next(step for step in synthetic_history.steps if step.key.scheme == "f32")
    at = synthetic_history.commits.index(step.commit)
    for number, path in enumerate(sorted(synthetic_history.results.iterdir())):
        machine = {"system": "Linux 6.1" if number < at else "Linux 6.2"}
        versions = {"numpy": "2.0" if number < at else "2.1", "assay": str(number)}
        write_records(
            tmp_path / "runs",
            [
                msgspec.structs.replace(
                    record, versions=versions, machine=msgspec.structs.replace(record.machine, **machine)
                )
                for record in read_records(path)
            ],
        )
    with open_store(tmp_path / "runs", database=tmp_path / "index.sqlite") as store:
        report = report_history(store, Filter(models=("resnet18",), metrics=("latency",), schemes=("f32",)))
    (shift,) = report.regressions
    assert shift.commit == step.commit
    assert shift.besides == ("numpy 2.0 to 2.1", "Linux 6.1 to Linux 6.2")


def test_the_repository_of_the_current_folder_counts(synthetic_history, tmp_path, monkeypatch):
    monkeypatch.chdir(synthetic_history.repository)
    assert len(commits_of(None, None)) == 30
    assert len(commits_of(None, "main~1")) == 29
    monkeypatch.chdir(tmp_path)
    assert commits_of(None, None) == []
    with pytest.raises(UsageError):
        commits_of(None, "main")
    with pytest.raises(UsageError):
        commits_of(tmp_path, None)


def test_texts_of_records_do_not_steer_the_terminal():
    series = make_series([1.0 + 0.001 * (number % 3) + 0.2 * (number >= 10) for number in range(20)])
    points = [dataclasses.replace(point, commit=f"\x1b[31m{point.commit}") for point in series.points]
    shifts = find_shifts([dataclasses.replace(series, points=tuple(points))]).shifts
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(shift_table(shifts, title="Regressions"))
    shown = console.file.getvalue()
    assert "\x1b" not in shown
    assert "?[31m0000" in shown


def judged(values, metric, **options):
    series = dataclasses.replace(make_series(values, metric=metric), unit="1")
    return [(shift.before, shift.after, shift.worse) for shift in find_shifts([series], **options).shifts]


@pytest.mark.parametrize(
    ("metric", "before", "after", "found"),
    [
        ("error", 0.0, 0.5, True),
        ("error", 0.001, 0.004, False),  # four times as much, and hardly a part of what is allowed
        ("cosine_distance", 2e-7, 1e-4, True),
        ("cosine_distance", 1e-4, 1.8e-4, False),
        ("perplexity", 20.0, 20.2, True),
        ("absolute_error", 1e-6, 1e-3, False),
        ("kernels", 12.0, 13.0, True),
        ("workspace", 0.0, 65536.0, True),
    ],
)
def test_quality_has_rules_of_its_own(metric, before, after, found):
    values = [before] * 6 + [after] * 6
    expected = [(pytest.approx(before, abs=1e-12), pytest.approx(after), True)] if found else []
    assert judged(values, metric) == expected
    # What is asked for in percent is about speed and sizes.
    if metric in ("error", "cosine_distance"):
        assert judged(values, metric, least_effect=0.01) == expected
