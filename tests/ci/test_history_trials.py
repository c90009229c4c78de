from __future__ import annotations

import pytest

from assay.ci import history_trials
from assay.ci.history_trials import main, try_histories, try_series
from assay.results.synthetic import BENCHMARKS, Noise


def test_steps_of_whole_histories_are_counted():
    outcome = try_histories(3)
    assert outcome.planted == 3 * sum(len(benchmark.steps) for benchmark in BENCHMARKS)
    assert outcome.exact + outcome.near >= outcome.planted - 1
    assert outcome.right <= outcome.off_by_one <= 3
    assert try_histories(3) == outcome


def test_large_steps_are_found_and_none_where_none_is():
    found = try_series(10, Noise.NORMAL, 1.2)
    assert (found.series, found.exact, found.near, found.false) == (10, 10, 0, 0)
    nothing = try_series(10, Noise.NORMAL, None)
    assert (nothing.exact, nothing.near, nothing.false) == (0, 0, 0)


@pytest.mark.parametrize(
    ("planted", "found", "counts"),
    [
        ([], [], (0, 0, 0)),
        ([5], [5], (1, 0, 0)),
        ([5], [6], (0, 1, 0)),
        ([5], [7], (0, 0, 1)),
        ([5], [], (0, 0, 0)),
        ([5, 12], [5, 6, 12], (2, 0, 1)),
    ],
)
def test_what_was_found_is_matched_with_what_was_planted(planted, found, counts):
    assert history_trials._matched(planted, found) == counts


def test_the_tables_are_printed(capsys, monkeypatch):
    monkeypatch.setattr(history_trials, "_STEPS", (1.2,))
    main(["--histories", "1", "--series", "2"])
    shown = capsys.readouterr().out
    assert "| histories with every step at its commit, and no other | " in shown
    assert "| normal | +20% | 100.0% | 100.0% | 0 of 2" in shown
