from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from assay.ci.gate.records import gate_records
from assay.ci.gate.report import BuildInfo, SideInfo
from assay.results.record import read_records, write_records
from assay.results.store import open_store

BASE, HEAD = "a" * 40, "b" * 40


def side(commit: str, **changes: Any) -> SideInfo:
    time = "2026-01-01T00:00:00Z" if commit == BASE else "2026-01-02T00:00:00Z"
    fields = {"worktree": False, "dirty": False, "own_code": True, "commit_time": time}
    return SideInfo(ref=commit[:7], commit=commit, **{**fields, **changes})


def build(name: str, figures: dict[str, float]) -> BuildInfo:
    return BuildInfo(
        side=name, model="models/net.onnx", name="net", weights="trained", artifact=f"sha256:{name}",
        target="x86-64-v3", scheme="f32", profile="release", sizes={"batch": 2}, figures=figures,
    )  # fmt: skip


@pytest.fixture
def report(make_report, make_row):
    """Three rounds with one thread and with two, and exact figures, of which the head's are worse."""
    runs = {"base_runs": (1.0, 3.0, 2.0), "head_runs": (2.0, 4.0, 6.0)}
    rows = [make_row("regression", model="models/net.onnx", threads=threads, **runs) for threads in (1, 2)]
    rows.append(make_row("unchanged", model="models/net.onnx", threads=None, metric="artifact_size"))
    exact = {"artifact_size": 1000.0, "error": 0.0, "absolute_error": 1e-6, "instructions": 5000.0}

    def make(**changes: Any):
        fields = {
            "base": side(BASE),
            "head": side(HEAD),
            "builds": (build("base", exact), build("head", exact | {"artifact_size": 1100.0})),
        }
        return make_report(*rows, **{**fields, **changes})

    return make


def test_both_sides_are_recorded_at_their_commits(report):
    records = gate_records(report())
    assert len({record.run_id for record in records}) == 1
    found = {(record.commit, record.metric, record.threads): record.value for record in records}
    assert found == {
        (BASE, "latency", 1): 2.0,
        (BASE, "latency", 2): 2.0,
        (HEAD, "latency", 1): 4.0,
        (HEAD, "latency", 2): 4.0,
        **{(commit, "instructions", 1): 5000.0 for commit in (BASE, HEAD)},
        **{(commit, "error", threads): 0.0 for commit in (BASE, HEAD) for threads in (1, 2)},
        **{(commit, "absolute_error", threads): 1e-6 for commit in (BASE, HEAD) for threads in (1, 2)},
        **{(BASE, "artifact_size", threads): 1000.0 for threads in (1, 2)},
        **{(HEAD, "artifact_size", threads): 1100.0 for threads in (1, 2)},
    }
    latency = next(record for record in records if record.metric == "latency")
    assert latency.samples == (1.0, 3.0, 2.0)
    assert latency.samples_per_round == (1, 1, 1)
    assert latency.interval == (1.0, 3.0)
    assert (latency.model, latency.sizes, latency.method) == ("net", {"batch": 2}, "gate")
    assert (latency.artifact, latency.commit_time) == ("sha256:base", "2026-01-01T00:00:00Z")


def test_the_store_takes_them_all(report, tmp_path):
    records = gate_records(report())
    path = write_records(tmp_path / "runs", records)
    assert read_records(path) == records
    with open_store(tmp_path / "runs", database=tmp_path / "x") as store:
        assert store.exclusions == ()
        methods = {each.key.metric: each.key.method for each in store.series()}
    assert methods["latency"] == "gate"
    # Sizes and errors are the same whoever reads them, and continue what `assay bench` recorded.
    assert methods["artifact_size"] == methods["error"] == "bench"


def test_a_dirty_head_says_so(report):
    records = gate_records(report(head=side(BASE, worktree=True, dirty=True)))
    assert {(record.commit, record.dirty) for record in records} == {(BASE, False), (BASE, True)}


@pytest.mark.parametrize("broken", [0.0, -1.0, math.nan, math.inf])
def test_what_is_broken_is_not_recorded(make_report, make_row, broken):
    row = make_row("broken", model="models/net.onnx", base_runs=(1.0, 1.0), head_runs=(1.0, broken))
    builds = (build("base", {"kernels": 3.0}), build("head", {"kernels": broken}))
    records = gate_records(make_report(row, base=side(BASE), head=side(HEAD), builds=builds))
    assert {(record.commit, record.metric) for record in records} == {(BASE, "latency"), (BASE, "kernels")}


def test_without_a_single_round_there_are_exact_figures(make_report, make_row):
    row = make_row("inconclusive", model="models/net.onnx", base_runs=(), head_runs=())
    records = gate_records(
        make_report(row, base=side(BASE), head=side(HEAD), builds=(build("head", {"kernels": 3.0}),))
    )
    assert [(record.commit, record.metric, record.threads) for record in records] == [(HEAD, "kernels", 1)]


def test_nothing_built_is_nothing_recorded(make_report, make_row):
    assert gate_records(make_report(make_row("missing"))) == []


def test_phases_of_language_models_have_metrics_of_their_own(make_report, make_row):
    runs = {"base_runs": (0.5,), "head_runs": (0.25,)}
    rows = [
        make_row("unchanged", model="models/net.onnx", metric=metric, unit=unit, phase=phase, **runs)
        for phase in ("prefill", "decode")
        for metric, unit in (("latency", "s"), ("load_time", "s"))
    ]
    head = msgspec.structs.replace(build("head", {}), sizes={"batch": 1, "prompt": 64})
    records = gate_records(make_report(*rows, base=side(BASE), head=side(HEAD), builds=(head,)))
    assert [(record.metric, record.value, record.unit, record.sizes) for record in records] == [
        ("ttft", 0.25, "s", {"batch": 1, "prompt": 64}),
        ("load_time", 0.25, "s", {"batch": 1, "prompt": 64}),
        ("decode", 4.0, "tokens/s", {"batch": 1, "depth": 64}),
    ]
