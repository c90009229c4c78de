from __future__ import annotations

from assay.results.costs import cost_markdown, cost_rows, cost_table


def test_one_row_for_each_engine_with_what_was_measured(make_record):
    records = [
        make_record(),
        make_record([[0.25]], metric="load_time", value=0.25),
        make_record([[5e6]], metric="peak_memory", unit="bytes", value=5e6),
        make_record([[0.5]], metric="load_time", value=0.5, engine="onnxruntime"),
    ]
    ours, theirs = cost_rows(records)
    assert ours.values == {"load_time": 0.25, "peak_memory": 5e6}
    assert theirs.values == {"load_time": 0.5}
    lines = cost_markdown([ours, theirs]).splitlines()
    assert lines[2] == "| tiny | assay | 1 | 250 ms |  | 5.00 MB |  |  |  |"
    assert cost_table([ours, theirs]).row_count == 2


def test_latency_alone_has_no_costs(make_record):
    assert cost_rows([make_record()]) == []
