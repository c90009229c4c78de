from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from assay.results.report import (
    Row,
    format_value,
    markdown_table,
    problem_lines,
    report_rows,
    rich_table,
    rows_as_json,
)


def pair(make_record):
    ours = make_record([[0.010], [0.010], [0.010]], value=0.010)
    theirs = make_record([[0.015], [0.015], [0.015]], value=0.015, engine="onnxruntime")
    return [theirs, ours]


def test_our_row_comes_first_and_has_the_ratio(make_record):
    ours, theirs = report_rows(pair(make_record))
    assert (ours.engine, theirs.engine) == ("assay", "onnxruntime")
    assert ours.ratio == pytest.approx(1.5)
    assert ours.interval == pytest.approx((1.5, 1.5))
    assert theirs.ratio is None


def test_records_are_compared_only_with_their_like(make_record):
    records = pair(make_record)
    records[0] = make_record([[0.015]] * 3, engine="onnxruntime", threads=2)
    assert [row.ratio for row in report_rows(records)] == [None, None]


def test_other_metrics_are_left_out(make_record):
    records = [*pair(make_record), make_record(metric="peak_memory", unit="bytes")]
    assert {row.metric for row in report_rows(records)} == {"latency"}
    (row,) = report_rows(records, metric="peak_memory")
    assert row.unit == "bytes"


def test_markdown(make_record):
    text = markdown_table(report_rows(pair(make_record)))
    lines = text.splitlines()
    assert lines[0] == (
        "| model | engine | threads | median | spread (IQR) | ONNX Runtime / ours | 95% interval |"
    )
    assert lines[2] == "| tiny | assay | 1 | 10.0 ms | 0.00 ns | 1.50 | 1.50 to 1.50 |"
    assert len(lines) == 4


def test_artifacts_of_one_model_are_told_apart_and_have_their_own_reference(make_record):
    records = []
    for artifact, latency in (("sha256:aaaaaaaaaa", 0.001), ("sha256:bbbbbbbbbb", 0.002)):
        for engine, factor in (("assay", 1), ("onnxruntime", 3)):
            value = latency * factor
            records.append(make_record([[value]] * 3, engine=engine, artifact=artifact, value=value))
    rows = report_rows(records)
    assert [row.build for row in rows] == [
        "x86-64-v3 f32 release aaaaaaaa",
        None,
        "x86-64-v3 f32 release bbbbbbbb",
        None,
    ]
    assert [row.ratio for row in rows if row.engine == "assay"] == pytest.approx([3.0, 3.0])
    assert "assay (x86-64-v3 f32 release bbbbbbbb)" in markdown_table(rows)


def test_one_round_has_no_spread(make_record):
    (row,) = report_rows([make_record([[0.01, 0.02]], value=0.015)])
    assert row.spread is None
    assert "| tiny | assay | 1 | 15.0 ms |  |  |  |" in markdown_table([row])


def test_sizes_are_shown(make_record):
    rows = report_rows([make_record(sizes={"batch": 1, "sequence": 128})])
    assert "| tiny, batch=1, sequence=128 | assay |" in markdown_table(rows)


def test_random_weights_are_labelled(make_record):
    assert "tiny (random weights)" in markdown_table(report_rows([make_record(weights="random")]))


def test_a_problem_stands_in_its_row():
    row = Row(model="a|b", engine="assay", threads=1, metric="latency", problem="It broke.\nBadly.")
    assert r"| a\|b | assay | 1 | It broke. Badly. |" in markdown_table([row])
    stream = io.StringIO()
    Console(file=stream, width=160).print(rich_table([row]))
    assert "not measured" in stream.getvalue()
    assert problem_lines([row]) == ["a|b, assay: It broke.\nBadly."]


def test_the_table_shows_names_that_look_like_markup(make_record):
    stream = io.StringIO()
    rows = report_rows([make_record(model="model[bold]")])
    Console(file=stream, width=160).print(rich_table(rows, title="Latency"))
    assert "model[bold]" in stream.getvalue()


def test_json_of_rows_parses(make_record):
    rows = json.loads(json.dumps(rows_as_json(report_rows(pair(make_record)))))
    assert rows[0]["ratio"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.234, "s", "1.23 s"),
        (0.0123, "s", "12.3 ms"),
        (0.9999, "s", "1.00 s"),
        (123e-6, "s", "123 µs"),
        (5e-9, "s", "5.00 ns"),
        (0.0, "s", "0.00 ns"),
        (123, "bytes", "123 B"),
        (45_600_000, "bytes", "45.6 MB"),
        (2_000_000_000, "bytes", "2.00 GB"),
    ],
)
def test_values_have_three_digits_and_a_prefix(value, unit, text):
    assert format_value(value, unit) == text
