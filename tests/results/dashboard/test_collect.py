from __future__ import annotations

from statistics import median

import pytest

from assay.results.dashboard.collect import collect_entries, entries_of_builds
from assay.results.dashboard.model import OURS, Build, Quality
from assay.results.dashboard.payload import identifier, index
from assay.results.history import find_shifts
from assay.results.record import write_records
from assay.results.series import Filter
from assay.results.store import open_store

RUNS = ("run-1", "run-2", "run-3")


@pytest.fixture
def stored(tmp_path, make_record):
    """A function that stores records, run by run, and gives their entries."""

    def store(*records, **options):
        for run in sorted({record.run_id for record in records}):
            write_records(tmp_path / "runs", [record for record in records if record.run_id == run])
        with open_store(tmp_path / "runs", database=tmp_path / "index.sqlite") as opened:
            shifts = find_shifts(opened.series(Filter(engines=(OURS,)))).shifts
            return collect_entries(opened, shifts=shifts, **options)

    return store


@pytest.fixture
def latency(make_record):
    """A function that makes a record of one latency for each round."""

    def make(run, rounds, **changes):
        fields = {
            "run_id": run,
            "time": f"2026-01-{RUNS.index(run) + 10}T00:00:00Z",
            "commit": f"{RUNS.index(run):040x}",
            "value": median(rounds),
        }
        return make_record([[value] for value in rounds], **{**fields, **changes})

    return make


def test_ratios_are_of_the_same_run(stored, latency):
    (entry,) = stored(
        latency("run-1", [0.010] * 3), latency("run-1", [0.020] * 3, engine="onnxruntime"),
        latency("run-2", [0.010] * 3),
        latency("run-3", [0.005, 0.010, 0.020]),
        latency("run-3", [0.010, 0.030, 0.080], engine="onnxruntime"),
    )  # fmt: skip
    assert [line.engine for line in entry.lines] == [OURS, "onnxruntime"]
    (ratio,) = entry.ratios
    assert [point.run for point in ratio.points] == ["run-1", "run-3"]
    assert [point.value for point in ratio.points] == pytest.approx([2.0, 3.0])
    assert (ratio.points[0].low, ratio.points[0].high) == pytest.approx((2.0, 2.0))
    low, high = ratio.points[1].low, ratio.points[1].high
    # Rounds are resampled in pairs, whose ratios are 2, 3 and 4.
    assert 2.0 <= low <= 3.0 <= high <= 4.0
    assert low < high


def test_of_rates_ours_is_above(stored, latency):
    rate = {"metric": "decode", "unit": "tokens/s"}
    (entry,) = stored(
        latency("run-1", [60.0, 66.0, 63.0], **rate),
        latency("run-1", [30.0, 33.0, 31.5], engine="llama.cpp", **rate),
    )
    assert entry.ratios[0].points[0].value == pytest.approx(2.0)
    assert entry.ratios[0].points[0].low == pytest.approx(2.0)
    assert entry.lines[0].higher


def test_a_peer_beside_several_builds_counts_for_all(stored, latency):
    entries = stored(
        latency("run-1", [0.01], artifact="a"),
        latency("run-1", [0.04], artifact="b", profile="debug"),
        latency("run-1", [0.02], artifact="a", engine="onnxruntime"),
    )
    found = {entry.configuration.profile: entry.ratios[0].points[0].value for entry in entries}
    assert found == pytest.approx({"release": 2.0, "debug": 0.5})


def test_other_sizes_threads_targets_and_machines_are_other_entries(stored, latency, make_record):
    base = latency("run-1", [0.01])
    other = make_record().machine.__class__(
        **{**{name: getattr(base.machine, name) for name in base.machine.__struct_fields__}, "cpu": "Other"}
    )
    entries = stored(
        base,
        latency("run-1", [0.01], sizes={"batch": 2}),
        latency("run-1", [0.01], threads=2),
        latency("run-1", [0.01], target="x86-64-v4"),
        latency("run-1", [0.01], machine=other),
    )
    assert len(entries) == 5
    assert {entry.configuration.machine.cpu for entry in entries} == {"Test CPU", "Other"}
    assert {entry.configuration.sizes for entry in entries} == {"", "batch=2"}


def test_peers_without_ours_make_no_entry(stored, latency):
    assert stored(latency("run-1", [0.01], engine="onnxruntime")) == []


def test_random_weights_and_unclean_checkouts_are_kept(stored, latency):
    (entry,) = stored(latency("run-1", [0.01], weights="random", dirty=True))
    assert entry.configuration.weights == "random"
    assert entry.lines[0].points[0].dirty


def test_change_points_stand_at_their_first_record(stored, latency):
    values = [0.01] * 10 + [0.02] * 10
    records = [
        latency(
            "run-1",
            [value] * 3,
            run_id=f"run-{day:02}",
            time=f"2026-01-{day + 1:02}T00:00:00Z",
            commit=f"{day:040x}",
        )
        for day, value in enumerate(values)
    ]
    (entry,) = stored(*records)
    (change,) = entry.line("latency").changes
    assert (change.index, change.confirmed) == (10, True)
    assert change.ratio == pytest.approx(2.0)


def test_commits_of_other_branches_are_left_out(stored, latency):
    main, branch, nowhere = "a" * 40, "b" * 40, None
    (entry,) = stored(
        latency("run-1", [0.01], commit=main),
        latency("run-2", [0.02], commit=branch),
        latency("run-3", [0.03], commit=nowhere),
        latency("run-2", [0.02], commit=branch, threads=2),
        commits=[main],
    )
    assert [point.commit for point in entry.line("latency").points] == [main, nowhere]


def test_builds_join_their_figures_or_stand_alone(stored, latency):
    def build(target, executed):
        return Build(
            model="tiny", weights="trained", target=target, scheme="f32", profile="release", executed=executed
        )

    builds = [build("x86-64-v3", "native"), build("metal", "never")]
    alone, measured = stored(latency("run-1", [0.01]), builds=builds)
    assert measured.build == builds[0]
    assert (alone.build, alone.lines, alone.configuration.threads) == (builds[1], (), 0)
    assert entries_of_builds(builds[1:]) == [alone]


def test_the_made_up_history_has_its_change_points_where_they_were_planted(entries, history):
    found = {
        (entry.configuration.model, line.metric, line.points[change.index].commit): change.ratio
        for entry in entries
        for line in entry.lines
        for change in line.changes
    }
    planted = {(step.key.model, step.key.metric, step.commit): step.ratio for step in history.steps}
    assert found == pytest.approx(planted, rel=0.02)


def figure(make_record, metric, value, unit="1", **changes):
    return make_record([[value]], run_id="run-1", metric=metric, unit=unit, value=value, **changes)


def test_sizes_and_errors_of_records_tell_of_builds(stored, latency, make_record):
    quality = [
        figure(make_record, "absolute_error", 2e-5, note="against onnxruntime 1.31"),
        figure(make_record, "cosine_distance", 0.0),
        figure(make_record, "artifact_size", 5000.0, "bytes"),
        figure(make_record, "perplexity", 17.5),
    ]
    (entry,) = stored(latency("run-1", [0.01]), *quality)
    assert entry.build.size == 5000
    assert entry.build.quality == Quality(
        reference="onnxruntime 1.31", cosine=1.0, absolute_error=2e-5, perplexity=17.5
    )
    assert entry.line("absolute_error").points[0].value == 2e-5


def test_what_a_manifest_says_stands_before_what_records_say(stored, latency, make_record):
    quality = Quality(reference="onnxruntime 1.30", cosine=0.5, absolute_error=0.1)
    build = Build(
        model="tiny", weights="trained", target="x86-64-v3", scheme="f32", profile="release", quality=quality
    )
    records = [figure(make_record, name, 0.0) for name in ("absolute_error", "cosine_distance")]
    (entry,) = stored(latency("run-1", [0.01]), *records, builds=[build])
    assert entry.build.quality == quality


def test_methods_are_rows_of_their_own_and_share_what_the_artifact_is(stored, latency, make_record):
    size = figure(make_record, "artifact_size", 5000.0, "bytes", method="gate")
    entries = stored(
        latency("run-1", [0.01]), latency("run-2", [0.02], method="gate"), size,
        latency("run-1", [0.03], model="other", method="gate"),
        figure(make_record, "kernels", 7.0, "kernels", method="gate", model="other"),
    )  # fmt: skip
    found = {
        (entry.configuration.model, entry.configuration.method): sorted(line.metric for line in entry.lines)
        for entry in entries
    }
    assert found == {
        ("tiny", "bench"): ["artifact_size", "latency"],
        ("tiny", "gate"): ["artifact_size", "latency"],
        ("other", "gate"): ["kernels", "latency"],
    }
    assert {entry.build.size for entry in entries if entry.configuration.model == "tiny"} == {5000}
    assert len({identifier(entry.configuration) for entry in entries}) == 3
    rows = index(entries)["rows"]
    assert sorted(row["method"] for row in rows) == ["bench", "gate", "gate"]


def test_a_build_that_was_only_verified_has_a_row(stored, make_record):
    (entry,) = stored(figure(make_record, "absolute_error", 1e-6))
    assert entry.configuration.method == "bench"
    assert [line.metric for line in entry.lines] == ["absolute_error"]


def test_a_change_of_the_artifact_is_told_once(stored, make_record):
    records = []
    for day in range(20):
        fields = {
            "run_id": f"run-{day:02}", "commit": f"{day:040x}", "time": f"2026-01-{day + 1:02}T00:00:00Z"
        }  # fmt: skip
        size = 1000.0 if day < 10 else 2000.0
        for method in ("bench", "gate"):
            records.append(make_record([[0.01]], value=0.01, method=method, **fields))
        records.append(make_record([[size]], metric="artifact_size", unit="bytes", value=size, **fields))
    entries = stored(*records)
    assert [entry.configuration.method for entry in entries] == ["bench", "gate"]
    (change,) = index(entries)["changes"]
    assert (change["metric"], change["id"]) == ("artifact_size", identifier(entries[0].configuration))
