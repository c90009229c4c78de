from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from assay.benchmarks.llm import LanguageFiles, fidelity
from assay.benchmarks.llm.fidelity import compare_greedy, main


class Table:
    """A language model that looks at the latest token alone: row ``t`` has the logits after token ``t``."""

    def __init__(self, logits: Any) -> None:
        self.logits = np.array(logits, np.float32)
        self.read: list[int] = []

    def advance(self, tokens: Sequence[Sequence[int]]) -> Any:
        self.read += tokens[0]
        return self.logits[[tokens[0][-1]]]

    def reset(self) -> None:
        self.read = []


THEIRS = [[0.0, 3.0, 1.0], [0.0, 1.0, 1.25], [2.0, 0.0, 0.0]]


def test_the_same_logits_give_the_same_text():
    ours, theirs = Table(THEIRS), Table(THEIRS)
    text, found = compare_greedy(ours, theirs, [1, 0], 5)
    assert text == [1, 2, 0, 1, 2]
    assert found == []
    assert ours.read == theirs.read == [1, 0, 1, 2, 0, 1]


def test_the_text_ends_where_the_model_ends_it():
    assert compare_greedy(Table(THEIRS), Table(THEIRS), [0], 5, ends=[2])[0] == [1, 2]


def test_a_difference_has_the_margins_of_both():
    other = [THEIRS[0], [0.0, 1.5, 1.0], THEIRS[2]]
    ours = Table(other)
    text, found = compare_greedy(ours, Table(THEIRS), [0], 3)
    assert text == [1, 2, 0]
    assert ours.read == [0, 1, 2]
    (only,) = found
    assert (only.step, only.token, only.their_token) == (1, 1, 2)
    assert (only.margin, only.their_margin) == (0.5, 0.25)
    shift = np.array([0.0, 0.5, -0.25])
    assert only.distance == pytest.approx(shift.std())


def test_says_that_there_is_no_artifact(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--engine", "torch"]) != 0
    assert "There is no artifact at" in capsys.readouterr().err


def test_onnxruntime_is_given_the_form_that_it_is_fast_with(tmp_path, monkeypatch):
    """Whatever else it is compared with; the other engines read the same model."""
    plain = LanguageFiles(name="m", artifact=tmp_path, canonical=tmp_path / "m.onnx", gguf=None, folder=None)
    shown = []
    monkeypatch.setattr(fidelity, "_files", lambda artifact: plain)
    monkeypatch.setattr(fidelity, "_show_greedy", lambda files, *_: shown.append(files.canonical.name))
    monkeypatch.setattr("assay.runtime.load_decoder", lambda *_, **__: None)
    monkeypatch.setattr(
        "assay.benchmarks.llm.onnx_runtime.with_fast_products",
        lambda files, folder: dataclasses.replace(files, canonical=folder / "fast.onnx"),
    )
    for engines in (["torch"], ["torch", "onnxruntime"]):
        assert main([str(tmp_path), *(part for name in engines for part in ("--engine", name))]) == 0
    assert shown == ["m.onnx", "fast.onnx"]
