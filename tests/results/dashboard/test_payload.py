from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from assay.results.dashboard.model import Change, Configuration, Entry, Line, Machine, Point
from assay.results.dashboard.payload import as_script, detail, identifier, index

from .conftest import HOSTILE

MACHINE = Machine(name="0123abcd", cpu="Test CPU", cpus=2)


def configuration(**changes) -> Configuration:
    fields = {
        "model": "tiny", "weights": "trained", "sizes": "", "target": "x86-64-v3", "scheme": "f32",
        "profile": "release", "threads": 1, "machine": MACHINE,
    }  # fmt: skip
    return Configuration(**{**fields, **changes})


def day(place: int) -> str:
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=place)).strftime("%Y-%m-%dT%H:%M:%SZ")


def line(values, *, metric="latency", engine="assay", unit="s", higher=False, changes=()) -> Line:
    points = [
        Point(commit=f"{place:040x}", time=day(place), value=value, run=f"r{place:05}")
        for place, value in enumerate(values)
    ]
    return Line(
        metric=metric, engine=engine, unit=unit, higher=higher, points=tuple(points), changes=tuple(changes)
    )


def parse(script: bytes):
    """What the script hands over, as JavaScript reads it."""
    found = re.fullmatch(rb"Assay\.receive\(\.\.\.(\[.*\])\);\n", script, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_scripts_hold_hostile_names_as_data():
    script = as_script("index", {"model": HOSTILE})
    assert b"<" not in script
    assert b">" not in script
    assert "\u2028".encode() not in script
    assert parse(script) == ["index", {"model": HOSTILE}]


def test_identifiers_are_safe_as_names_of_files_and_differ():
    names = {identifier(configuration(model=name)) for name in ("a", "b", "../../etc/passwd", HOSTILE)}
    assert len(names) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in names)


def test_a_row_has_the_newest_figure_and_the_last_change():
    entry = Entry(
        configuration=configuration(),
        lines=(
            line([0.2, 0.2, 0.1, 0.15], changes=[Change(index=2, ratio=0.5), Change(index=3, ratio=1.5)]),
        ),
    )
    (row,) = index([entry])["rows"]
    assert (row["value"], row["unit"], row["runs"]) == (0.15, "s", 4)
    assert row["change"]["ratio"] == 1.5
    assert row["change"]["better"] is False
    assert row["change"]["at"] == 1.0
    assert "interval" not in row


@pytest.mark.parametrize(("higher", "better"), [(True, True), (False, False)])
def test_more_is_better_for_rates_alone(higher, better):
    entry = Entry(
        configuration=configuration(),
        lines=(line([1.0, 2.0], higher=higher, changes=[Change(index=1, ratio=2.0)]),),
    )
    assert index([entry])["rows"][0]["change"]["better"] is better


def test_a_language_model_has_a_row_for_each_headline():
    entry = Entry(
        configuration=configuration(),
        lines=(line([1.0], metric="prefill"), line([2.0], metric="ttft"), line([3.0], metric="decode")),
    )
    assert [row["metric"] for row in index([entry])["rows"]] == ["decode", "ttft"]


def test_a_ratio_of_an_older_run_says_when():
    ours, peer = line([1.0, 1.0, 1.0]), line([2.0, 2.0], engine="torch", unit="ratio", higher=True)
    (row,) = index([Entry(configuration=configuration(), lines=(ours,), ratios=(peer,))])["rows"]
    assert row["older"] == {"torch": "2026-01-02T00:00:00Z"}


def test_trends_are_thinned_with_both_ends():
    (row,) = index([Entry(configuration=configuration(), lines=(line([float(i) for i in range(1, 1001)]),))])[
        "rows"
    ]
    assert len(row["trend"]) == 40
    assert (row["trend"][0], row["trend"][-1]) == (1.0, 1000.0)


def test_an_index_row_stays_small():
    entry = Entry(
        configuration=configuration(model="a" * 40),
        lines=(
            line([1.2345678e-3 * (1 + i % 7) for i in range(500)], changes=[Change(index=250, ratio=1.1)]),
        ),
        ratios=tuple(line([1.23456789], engine=f"peer{i}", unit="ratio", higher=True) for i in range(3)),
    )
    assert len(msgspec.json.encode(index([entry])["rows"])) < 1200


def test_old_runs_are_left_out_of_details_and_counted():
    entry = Entry(
        configuration=configuration(),
        lines=(
            line(
                [1.0 + i for i in range(700)], changes=[Change(index=10, ratio=2), Change(index=650, ratio=2)]
            ),
        ),
    )
    found = detail(entry)
    assert found["left_out"] == 200
    assert found["runs"][0]["run"] == "r00200"
    assert found["lines"][0]["value"] == [1.0 + i for i in range(200, 700)]
    assert found["lines"][0]["at"] == list(range(500))
    assert [change["at"] for change in found["lines"][0]["changes"]] == [450]


def test_figures_of_a_detail_lie_at_their_runs():
    ours, peer = line([1.0, 2.0, 3.0]), line([5.0, 6.0], engine="torch")
    found = detail(
        Entry(configuration=configuration(), lines=(ours, peer)), {f"{1:040x}": "Fix " + "x" * 500}
    )
    assert [each["at"] for each in found["lines"]] == [[0, 1, 2], [0, 1]]
    assert len(found["runs"][1]["subject"]) == 120
    assert "subject" not in found["runs"][0]
