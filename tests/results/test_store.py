from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from assay.errors import StoreError, UsageError
from assay.results.record import read_records, write_records
from assay.results.series import Filter
from assay.results.store import open_store
from assay.results.store_rows import content_key, unusable

COMMITS = ("a" * 40, "b" * 40, "c" * 40)


@pytest.fixture
def history(make_record):
    """Records of three commits, a day apart, of two engines."""
    return [
        [
            make_record(
                [[0.010 * scale], [0.011 * scale], [0.012 * scale]],
                value=0.011 * scale,
                interval=(0.010 * scale, 0.012 * scale),
                run_id=f"run-{day}",
                engine=engine,
                time=f"2026-01-{day + 10}T12:00:00Z",
                commit=commit,
                commit_time=f"2026-01-{day + 10}T01:00:00Z",
                branch="main",
                dirty=False,
            )
            for engine, scale in (("assay", 1.0 + day), ("onnxruntime", 2.0))
        ]
        for day, commit in enumerate(COMMITS)
    ]


@pytest.fixture
def folder(tmp_path, history) -> Path:
    for records in history:
        write_records(tmp_path / "runs", records)
    return tmp_path / "runs"


@pytest.fixture
def opened(folder, tmp_path):
    """A function that opens the store of the folder, as often as it is called."""
    return lambda: open_store(folder, database=tmp_path / "cache" / "index.sqlite")


@pytest.fixture(params=["folder", "sqlite"])
def store(request, opened, folder, tmp_path):
    if request.param == "folder":
        found = opened()
    else:
        found = open_store(f"sqlite:///{tmp_path / 'team.sqlite'}")
        found.add([folder])
    with found:
        yield found


def test_series_have_points_in_the_order_of_commits(store):
    ours, theirs = store.series()
    assert (ours.key.engine, theirs.key.engine) == ("assay", "onnxruntime")
    assert ours.unit == "s"
    assert [point.commit for point in ours.points] == list(COMMITS)
    assert [point.value for point in ours.points] == pytest.approx([0.011, 0.022, 0.033])
    first = ours.points[0]
    assert first.interval == (0.010, 0.012)
    assert first.commit_time == datetime(2026, 1, 10, 1, tzinfo=UTC)
    assert first.at == first.commit_time
    assert first.time == datetime(2026, 1, 10, 12, tzinfo=UTC)
    assert (first.rounds, first.run_id, first.branch, first.dirty) == (3, "run-0", "main", False)


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        (Filter(engines=("assay",)), 3),
        (Filter(engines=("assay",), since=datetime(2026, 1, 11, tzinfo=UTC)), 2),
        (Filter(until=datetime(2026, 1, 11, tzinfo=UTC)), 2),
        (Filter(models=("other", "tiny"), runs=("run-1",)), 2),
        (Filter(metrics=("decode",)), 0),
        (Filter(threads=(2,)), 0),
        (Filter(branches=("main",)), 6),
        (Filter(machines=("00000000",)), 0),
    ],
)
def test_a_filter_chooses_records(store, chosen, count):
    assert sum(len(series.points) for series in store.series(chosen)) == count
    assert len(store.records(chosen)) == count


def test_records_come_back_with_their_samples(store, history):
    assert store.records(Filter(engines=("assay",))) == [records[0] for records in history]
    point = store.series()[0].points[1]
    assert store.record(point.key) == history[1][0]
    with pytest.raises(KeyError):
        store.record("none")


def test_machines_are_told_apart(store, history):
    machine = history[0][0].machine
    assert store.machines() == {machine.identity(): machine}
    update = msgspec.structs.replace(machine, system="Linux 6.2", memory_bytes=machine.memory_bytes + 4096)
    assert update.identity() == machine.identity()
    assert msgspec.structs.replace(machine, cpu="Other").identity() != machine.identity()


def test_adding_twice_changes_nothing(folder, tmp_path, history):
    with open_store(f"sqlite:///{tmp_path / 'team.sqlite'}") as store:
        first, second = store.add([folder]), store.add(sorted(folder.iterdir()))
        assert (first.new, first.known) == (6, 0)
        assert (second.new, second.known) == (0, 6)
        assert len(store.records()) == 6


def test_the_embedded_database_follows_the_files(opened, folder, history):
    with opened() as store:
        assert len(store.records()) == 6
    (folder / "run-0.json").unlink()
    write_records(folder, [msgspec.structs.replace(history[1][0], note="anew")])
    (folder / "copy.json").write_bytes((folder / "run-2.json").read_bytes())
    with opened() as store:
        assert len(store.records()) == 3
        assert [record.note for record in store.records(Filter(runs=("run-1",)))] == ["anew"]
        (folder / "run-2.json").unlink()
        store.refresh()
        assert len(store.records()) == 3, "the same records are in another file still"


def test_files_that_did_not_change_are_not_read_again(opened, folder, monkeypatch):
    old = 1_700_000_000
    for path in folder.iterdir():
        os.utime(path, (old, old))
    read = []
    monkeypatch.setattr("assay.results.store._SETTLED_NANOSECONDS", 0)
    monkeypatch.setattr(
        "assay.results.store.read_records", lambda path: read.append(path) or read_records(path)
    )
    for _ in range(2):
        with opened() as store:
            assert len(store.records()) == 6
    assert len(read) == 3


def test_a_damaged_cache_is_built_anew(opened, folder, tmp_path):
    with opened():
        pass
    cache = tmp_path / "cache" / "index.sqlite"
    cache.write_bytes(b"no database at all" * 100)
    with opened() as store:
        assert len(store.records()) == 6
    with sqlite3.connect(cache) as connection:
        connection.execute("update assay_about set value = '999'")
    connection.close()
    with opened() as store:
        assert len(store.records()) == 6


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with open_store(folder, database=tmp_path / "file" / "index.sqlite") as store:
        assert len(store.records()) == 6


def test_what_cannot_be_read_is_left_out_by_name(opened, folder, history):
    (folder / "foreign.json").write_text('{"rows": []}')
    (folder / "newer.json").write_text('{"schema_version": 99, "records": []}')
    whole = (folder / "run-0.json").read_bytes()
    (folder / "truncated.json").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        with opened() as store:
            assert len(store.records()) == 6
            reasons = {Path(exclusion.file).name: exclusion.reason for exclusion in store.exclusions}
    assert "damaged" in reasons["foreign.json"]
    assert "schema 99" in reasons["newer.json"]
    assert "damaged" in reasons["truncated.json"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"time": "yesterday"}, "its time 'yesterday' is not a time"),
        ({"commit_time": "12:00"}, "its commit_time '12:00' is not a time"),
        ({"value": 0.0, "samples": (0.0,) * 5}, "has the value 0 s, and latency is more than nothing"),
        ({"samples": (0.010, -0.5, 0.012, 0.013, 0.014)}, "has the value -0.5 s"),
        ({"value": 0.02}, "its value 0.02 is not that of its samples, 0.01175"),
        ({"interval": (0.02, 0.01)}, "its interval ends before it begins"),
        ({"threads": 2**40}, "out of range"),
        ({"note": "a\0b"}, "null character"),
    ],
)
def test_records_that_mean_nothing_are_left_out_by_name(tmp_path, make_record, changes, reason):
    good = make_record(value=0.01175)
    write_records(tmp_path / "runs", [good, make_record(**{"value": 0.01175, **changes})])
    with open_store(tmp_path / "runs", database=tmp_path / "index.sqlite") as store:
        assert store.records() == [good]
        (exclusion,) = store.exclusions
    assert exclusion.record == 1
    assert reason in exclusion.reason
    assert str(exclusion).startswith(f"{tmp_path / 'runs' / 'run-1.json'}, record 1: ")


def test_values_beyond_numbers_are_refused(tmp_path, make_record):
    path = write_records(tmp_path, [make_record(value=0.01175)])
    path.write_text(path.read_text().replace("0.01175", "1e999"))
    with open_store(tmp_path, database=tmp_path / "index.sqlite") as store:
        assert store.records() == []
        assert len(store.exclusions) == 1


def test_records_of_the_first_schema_have_their_place(tmp_path, make_record):
    path = write_records(tmp_path / "runs", [make_record(value=0.01175, commit="a" * 40, dirty=False)])
    content = json.loads(path.read_text())
    content["schema_version"] = 1
    for record in content["records"]:
        record["schema_version"] = 1
        del record["commit_time"], record["branch"]
    path.write_text(json.dumps(content))
    with open_store(tmp_path / "runs", database=tmp_path / "index.sqlite") as store:
        (series,) = store.series()
    (point,) = series.points
    assert (point.commit, point.commit_time, point.branch) == ("a" * 40, None, None)
    assert point.at == point.time


def test_a_folder_takes_no_records_but_as_files(opened, tmp_path):
    with opened() as store, pytest.raises(UsageError, match="takes records as files"):
        store.add([tmp_path])


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("no-such-folder", UsageError, "There is no folder"),
        ("mysql://me:secret@host/base", UsageError, "cannot be kept in mysql"),
        ("sqlite:////no-such-folder/base.sqlite", StoreError, "unable to open"),
        ("://", UsageError, "neither a folder nor a URL"),
        ("postgresql://me:secret@127.0.0.1:1/base", StoreError, "failed"),
    ],
)
def test_places_that_are_no_store(place, error, message):
    with pytest.raises(error, match=message) as caught:
        open_store(place)
    assert "secret" not in str(caught.value)


def test_a_database_of_another_version_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'team.sqlite'}"
    with open_store(url):
        pass
    with sqlite3.connect(tmp_path / "team.sqlite") as connection:
        connection.execute("update assay_about set value = '999'")
    connection.close()
    with pytest.raises(StoreError, match="version 999"):
        open_store(url)


def _as_first_version(path: Path) -> None:
    """Make of the tables of a SQLite file those of version 1."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for column in ("method", "medians"):
            connection.execute(f"alter table assay_records drop column {column}")
        connection.execute("update assay_about set value = '1' where name = 'version'")


@pytest.mark.parametrize("place", ["folder", "url"])
def test_tables_of_the_first_version_get_what_they_lack(place, folder, opened, tmp_path):
    with opened() as store:
        expected = store.series()
    path = tmp_path / "cache" / "index.sqlite"
    _as_first_version(path)
    with opened() if place == "folder" else open_store(f"sqlite:///{path}") as store:
        assert store.series() == expected
        assert expected[0].points[0].medians == pytest.approx((0.010, 0.011, 0.012))
        if place == "url":
            assert store.add([folder]).new == 0


def test_a_key_is_that_of_older_versions(make_record):
    """Teams' databases hold records by it: one that is pushed again must not count twice."""
    body = msgspec.to_builtins(make_record(), order="deterministic") | {"schema_version": 2}
    del body["method"]
    assert content_key(make_record()) == hashlib.sha256(msgspec.json.encode(body)).hexdigest()
    assert content_key(make_record()) == "63f8047a534ba3dc06b1c5cf4a6ed97f293c69ec6c776435ad875b8bb3a6c8ad"
    assert content_key(make_record(method="gate")) != content_key(make_record())


def test_methods_are_series_of_their_own_but_for_what_an_artifact_is(tmp_path, make_record):
    fields = {"commit": COMMITS[0], "dirty": False, "commit_time": "2026-01-01T00:00:00Z"}
    size = {"metric": "artifact_size", "unit": "bytes", "value": 5.0}
    records = [
        record
        for method in ("bench", "gate", "asv")
        for record in (
            make_record([[0.5]], method=method, value=0.5, **fields),
            make_record([[5.0]], method=method, **size, **fields),
        )
    ]
    write_records(tmp_path / "runs", records)
    with open_store(tmp_path / "runs", database=tmp_path / "x") as store:
        found = {(each.key.metric, each.key.method): len(each.points) for each in store.series()}
        gated = store.series(Filter(methods=("gate",)))
    assert found == {
        ("artifact_size", "bench"): 3,
        ("latency", "asv"): 1,
        ("latency", "bench"): 1,
        ("latency", "gate"): 1,
    }
    assert [each.key.benchmark() for each in gated] == ["tiny x86-64-v3 f32 assay 1 thread by gate"]


@pytest.mark.parametrize(
    ("metric", "value", "usable"),
    [
        ("error", 0.0, True),
        ("cosine_distance", 0.0, True),
        ("perplexity", 0.0, False),
        ("error", -0.1, False),
    ],
)
def test_no_error_at_all_is_possible(tmp_path, make_record, metric, value, usable):
    record = make_record([[value]], metric=metric, unit="1", value=value)
    assert (unusable(record) is None) == usable
