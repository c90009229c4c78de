from __future__ import annotations

import pytest

from assay.cli.engine_choice import check_plan, choose_engines
from assay.cli.output import Output
from assay.errors import BenchmarkError, MissingDependencyError, UnknownNameError, UsageError
from assay.registry import Registry


@pytest.fixture
def known() -> Registry[str]:
    found: Registry[str] = Registry("engine")
    found.add("torch", "torch")
    return found


def test_what_can_be_measured_passes(known):
    check_plan(known, ["torch"], [1])


def test_wrong_names_and_numbers_are_told(known):
    with pytest.raises(UnknownNameError, match="torhc"):
        check_plan(known, ["torhc"], [1])
    with pytest.raises(UsageError, match="4096 threads"):
        check_plan(known, [], [1, 4096])


def test_scipy_is_missed_before_anything_is_measured(known, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="scipy"):
        check_plan(known, [], [1])


def test_an_engine_that_cannot_run_is_left_out_with_a_word(capsys):
    reasons = {"b": "not installed"}
    assert choose_engines(["a", "b"], reasons.get, Output(), "x") == ["a"]
    assert "b is left out: not installed" in capsys.readouterr().err
    with pytest.raises(BenchmarkError, match="can run x"):
        choose_engines(["b"], reasons.get, Output(), "x")
