from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.errors import RecordError
from assay.results.asv_results import asv_files, read_asv_results
from assay.results.record import write_records
from assay.results.store import open_store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COLUMNS = [
    *("result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"),
    *("stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile"),
]
MODEL = [["'tiny'", "'other'"], ["'native'"], ["'default'"], ["'release'"]]
STATISTICS = [[0.0, 0.0], [1.0, 1.0], [0.1, 0.1], [0.3, 0.3], [1, 1], [4, 4]]
STARTED = 1_795_297_706_922


def contents(**changes: Any) -> dict[str, Any]:
    """A file of asv's with two models; of the second, samples were not kept."""
    samples = [[0.010, 0.014, 0.012, 0.011], None]
    latency = [[0.0115, 0.02], [*MODEL, ["1"]], "1", STARTED, 2.6, *STATISTICS, samples]
    return {
        "commit_hash": COMMIT,
        "env_name": "overlay-py3.11",
        "date": 1_795_293_974_000,
        "params": {"arch": "x86_64", "python": "3.11"},
        "python": "3.11",
        "requirements": {},
        "env_vars": {},
        "result_columns": COLUMNS,
        "results": {
            "models.Models.track_latency": latency,
            "models.Batches.track_time_per_item": [
                [0.001, 0.002], [["'tiny'"], *MODEL[1:], ["2"], ["1", "4"]], "1", STARTED, 1.0,
            ],
            "language.LanguageModels.track_decode_time_per_token": [
                [0.05], [["'talker'"], ["'native'"], ["'q4'"], ["1"]], "1", STARTED, 1.0,
            ],
            "artifact.Sizes.track_size": [[1000, math.nan], MODEL, "1", STARTED, 0.9],
            "quality.Errors.track_error": [[0.0, 1e-6], MODEL, "1", STARTED, 0.9],
            "quality.Perplexity.track_perplexity": [None, [["'talker'"], ["'x'"], ["'q4'"]], "1", STARTED],
            "peers.Peers.track_latency_ratio": [[0.5], [["'tiny'"]], "1", STARTED, 4.8],
            "of.another.suite": None,
        },
        "durations": {},
        "version": 2,
        **changes,
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of results, as asv lays it out, and give its path."""
    (tmp_path / "asv" / "vm").mkdir(parents=True)
    (tmp_path / "asv" / "benchmarks.json").write_text('{"version": 2}')
    machine = {
        "arch": "x86_64",
        "cpu": "A CPU",
        "machine": "vm",
        "num_cpu": "2",
        "os": "Linux 6",
        "ram": "1024",
    }
    (tmp_path / "asv" / "vm" / "machine.json").write_text(json.dumps({**machine, "version": 1}))

    def to(name: str = "0123-overlay.json", **changes: Any) -> Path:
        path = tmp_path / "asv" / "vm" / name
        path.write_text(json.dumps(contents(**changes)))
        return path

    return to


def test_figures_become_records_of_their_metric(write):
    records = read_asv_results(write())
    found = {
        (record.model, record.metric, tuple(record.sizes.items())): (record.value, record.threads)
        for record in records
    }
    assert found == {
        ("tiny", "latency", ()): (pytest.approx(0.0115), 1),
        ("other", "latency", ()): (0.02, 1),
        ("tiny", "latency", (("batch", 1),)): (0.001, 2),
        ("tiny", "latency", (("batch", 4),)): (0.008, 2),
        ("talker", "decode", ()): (pytest.approx(20.0), 1),
        ("tiny", "artifact_size", ()): (1000.0, 1),
        ("tiny", "absolute_error", ()): (0.0, 1),
        ("other", "absolute_error", ()): (1e-6, 1),
    }
    latency = records[0]
    assert latency.samples == (0.010, 0.014, 0.012, 0.011)
    assert latency.samples_per_round == (1, 1, 1, 1)
    assert latency.interval is not None
    assert latency.interval[0] < latency.value < latency.interval[1]
    assert (latency.target, latency.scheme, latency.profile) == ("native", "default", "release")
    assert (latency.method, latency.weights, latency.engine) == ("asv", "unknown", "assay")
    assert (latency.commit, latency.dirty) == (COMMIT, False)
    assert (latency.time, latency.commit_time) == ("2026-11-21T21:48:26Z", "2026-11-21T20:46:14Z")
    assert (latency.machine.cpu, latency.machine.cpus, latency.machine.memory_bytes) == ("A CPU", 2, 1024)


def test_what_an_environment_that_was_there_holds_is_unknown(write):
    assert {record.dirty for record in read_asv_results(write(env_name="existing-py_usr_bin_python"))} == {
        None
    }


def test_a_store_reads_them_beside_records(write, make_record, tmp_path):
    write()
    write_records(tmp_path / "runs", [make_record([[0.5]], value=0.5)])
    options = {"database": tmp_path / "x", "beside": [tmp_path / "asv", tmp_path / "none"]}
    with open_store(tmp_path / "runs", **options) as store:
        assert len(store.records()) == 9
        assert store.exclusions == ()
        keys = {point.key for series in store.series() for point in series.points}
    # Read again, and after asv measured one benchmark more: the same records, and those of it.
    more = contents()["results"]["artifact.Sizes.track_size"]
    results = contents()["results"] | {"artifact.Sizes.track_workspace": more}
    write(results=results)
    with open_store(tmp_path / "runs", **options) as store:
        again = {point.key for series in store.series() for point in series.points}
    assert keys < again
    assert len(again) == 10


def test_folders_of_asv_can_be_pushed_as_often_as_one_likes(write, tmp_path):
    path = write()
    with open_store(f"sqlite:///{tmp_path / 'team.sqlite'}") as store:
        assert store.add([tmp_path / "asv"]).new == 8
        for place in (tmp_path / "asv" / "vm", path):
            again = store.add([place])
            assert (again.new, again.known, again.exclusions) == (0, 8, ())
    assert asv_files(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "version"),
        ({"commit_hash": "<script>"}, "commit_hash"),
        ({"date": "today"}, "date"),
        ({"date": 10**30}, "Models"),
        ({"results": []}, "results"),
        ({"results": {"models.Models.track_latency": [[1.0], MODEL, "1"]}}, "it has 4 parameters, not 5"),
        (
            {"results": {"artifact.Sizes.track_size": [[1.0], MODEL, "1"]}},
            "it has 1 figures for 2 combinations of parameters",
        ),
        (
            {"results": {"artifact.Sizes.track_size": [[1.0], [["__import__('os')"], *MODEL[1:]], "1"]}},
            "is no parameter",
        ),
        ({"results": {"artifact.Sizes.track_size": [["large", 1.0], MODEL, "1"]}}, "result"),
    ],
)
def test_what_is_not_as_asv_writes_it_is_named(write, tmp_path, changes, message):
    path = write(**changes)
    with pytest.raises(RecordError, match=message) as raised:
        read_asv_results(path)
    assert str(path) in raised.value.message
    with open_store(tmp_path / "asv", database=tmp_path / "x") as store:
        assert len(store.exclusions) == 1
        assert store.records() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_damaged_files_are_named(write, content):
    path = write()
    path.write_bytes(content)
    with pytest.raises(RecordError, match="not as asv writes it"):
        read_asv_results(path)
    machine = path.with_name("machine.json")
    write()
    machine.write_bytes(content)
    with pytest.raises(RecordError, match=r"machine\.json is not as asv writes it"):
        read_asv_results(path)


def test_figures_that_cannot_be_are_left_out(write, tmp_path):
    results = {"artifact.Sizes.track_size": [[-5.0, math.inf], MODEL, "1", STARTED]}
    write(results=results)
    with open_store(tmp_path / "asv", database=tmp_path / "x") as store:
        reasons = [exclusion.reason for exclusion in store.exclusions]
    assert [reason.partition(",")[0] for reason in reasons] == [
        "it has the value -5 bytes",
        "it has the value inf",
    ]
