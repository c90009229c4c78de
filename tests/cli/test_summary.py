from __future__ import annotations

import json

import numpy as np

from assay.cli.summary import summarize, summary_table


def test_the_best_classes_of_a_classifier():
    scores = np.zeros((2, 10), np.float32)
    scores[0, [7, 3]] = [0.9, 0.5]
    for shape in ((2, 10), (2, 10, 1, 1)):
        (found,) = summarize({"p": scores.reshape(shape)}, classifier=True)
        assert [entry["class"] for entry in found["top"]][:2] == [7, 3]
    assert "top" not in summarize({"p": scores}, classifier=False)[0]
    assert "top" not in summarize({"p": np.zeros((2, 10, 4))}, classifier=True)[0]


def test_what_is_not_finite_is_counted_and_kept_out_of_the_range():
    (found,) = summarize({"y": np.array([1.0, np.nan, np.inf, 3.0])}, classifier=True)
    assert (found["min"], found["max"], found["mean"], found["not_finite"]) == (1.0, 3.0, 2.0, 2)
    json.dumps(found, allow_nan=False)


def test_empty_integer_and_boolean_outputs():
    outputs = {"empty": np.zeros((0, 3)), "ids": np.array([[1, 5]]), "flag": np.array(True)}
    found = summarize(outputs, classifier=True)
    assert found[0]["min"] is None
    assert found[1]["max"] == 5.0
    assert found[2]["shape"] == []
    assert summary_table(found).row_count == 3
