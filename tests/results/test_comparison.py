from __future__ import annotations

import io

import pytest
from rich.console import Console

from assay.results.comparison import (
    comparison_markdown,
    comparison_table,
    geometric_mean,
    peer_cells,
    peer_rows,
    profile_cells,
    profile_rows,
)
from assay.results.report import report_rows


def latency(make_record, seconds, **changes):
    return make_record([[seconds]] * 3, value=seconds, **changes)


@pytest.fixture
def peers(make_record):
    return [
        latency(make_record, 0.010),
        latency(make_record, 0.020, engine="onnxruntime"),
        latency(make_record, 0.005, engine="torch"),
        latency(make_record, 0.010, model="other"),
        latency(make_record, 0.080, model="other", engine="onnxruntime"),
        make_record(metric="peak_memory", unit="bytes"),
    ]


def test_every_peer_has_its_ratio(peers):
    first, second = peer_rows(peers)
    assert {name: ratio.value for name, ratio in first.ratios.items()} == pytest.approx(
        {"onnxruntime": 2.0, "torch": 0.5}
    )
    assert first.ratios["torch"].interval == pytest.approx((0.5, 0.5))
    assert list(second.ratios) == ["onnxruntime"]


def test_the_means_say_of_how_many(peers):
    cells = peer_cells(peer_rows(peers), operations={"tiny": 10**9})
    assert cells[0] == ["model", "threads", "ours", "GFLOP/s", "ONNX Runtime / ours", "torch / ours"]
    assert cells[1] == [
        "tiny", "1", "10.0 ms", "100", "2.00 (2.00 to 2.00)", "0.50 (0.50 to 0.50)",
    ]  # fmt: skip
    assert cells[2][3:] == ["", "8.00 (8.00 to 8.00)", ""]
    assert cells[-1] == ["geometric mean", "1", "", "", "4.00 of 2", "0.50 of 1"]


def test_other_threads_sizes_and_runs_are_not_compared(make_record, peers):
    alone = [peers[0], latency(make_record, 1.0, engine="onnxruntime", threads=2)]
    assert peer_rows(alone) == []
    assert peer_rows([peers[0], latency(make_record, 1.0, engine="torch", sizes={"n": 2})]) == []
    assert peer_rows([peers[0], latency(make_record, 1.0, engine="torch", run_id="run-2")]) == []


@pytest.fixture
def builds(make_record):
    return [
        record
        for profile, seconds, build in (("pgo", 0.005, 60.0), ("debug", 0.040, 2.0), ("release", 0.010, 5.0))
        for record in (
            latency(make_record, seconds, profile=profile, artifact=f"sha256:{profile}"),
            make_record(
                [[build]], value=build, metric="compile_time", profile=profile, artifact=f"sha256:{profile}"
            ),
        )
    ]


def test_each_profile_is_compared_with_the_one_before(builds):
    (row,) = profile_rows(builds)
    assert {name: gain.value for name, gain in row.gains.items()} == pytest.approx({"release": 4, "pgo": 2})
    assert row.builds == {"debug": 2.0, "release": 5.0, "pgo": 60.0}
    cells = profile_cells([row])
    assert cells[0][2:5] == ["debug", "release", "pgo"]
    assert cells[0][-2:] == ["debug / release", "release / pgo"]
    assert cells[1][-2:] == ["4.00 (4.00 to 4.00)", "2.00 (2.00 to 2.00)"]
    assert cells[-1][-2:] == ["4.00 of 1", "2.00 of 1"]


def test_one_profile_makes_no_table(make_record):
    assert profile_rows([latency(make_record, 0.01)]) == []


def test_the_peer_of_several_builds_is_beside_each(make_record, builds):
    theirs = latency(make_record, 0.020, engine="onnxruntime", artifact="sha256:debug")
    rows = peer_rows([*builds, theirs])
    assert {row.build: row.ratios["onnxruntime"].value for row in rows} == pytest.approx(
        {"pgo": 4, "debug": 0.5, "release": 2}
    )
    assert peer_cells(rows)[1][0] == "tiny (pgo)"
    ours = [row for row in report_rows([*builds, theirs]) if row.engine == "assay"]
    assert sorted(row.ratio for row in ours) == pytest.approx([0.5, 2, 4])


def test_a_geometric_mean():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="no mean"):
        geometric_mean([])


def test_markdown_and_terminal(peers):
    cells = peer_cells(peer_rows(peers))
    text = comparison_markdown(cells)
    assert text.splitlines()[1] == "| --- | ---: | ---: | ---: | ---: |"
    assert "| other | 1 | 10.0 ms | 8.00 (8.00 to 8.00) |  |" in text
    stream = io.StringIO()
    Console(file=stream, width=120).print(comparison_table(cells, title="Peers"))
    assert "geometric mean" in stream.getvalue()
