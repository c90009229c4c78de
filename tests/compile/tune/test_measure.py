from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.compile.schedules.choices import ANALYTIC, Choice, packed_matmul_workload
from assay.compile.tune.measure import Measurer

WORKLOAD = packed_matmul_workload(6, 16, 32)
GOOD = 6


@pytest.fixture(scope="module")
def measurer(needs_avx2: None) -> Iterator[Measurer]:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with Measurer(
        "x86-64-v3", builder="planted:build", timeout=120, environment={"PYTHONPATH": path}
    ) as made:
        yield made


def status(measurer: Measurer, rows: int) -> tuple[str, str | None]:
    found = measurer.measure(WORKLOAD, Choice(rows=rows, panel_width=16), ANALYTIC, 1, 0.01)
    assert (found.ratio > 0) == (found.status == "ok")
    return found.status, found.error


def test_a_wrong_kernel_is_rejected_and_the_search_goes_on(measurer: Measurer) -> None:
    kind, error = status(measurer, 1)
    assert kind == "wrong"
    assert error is not None
    assert "differs from NumPy's by" in error
    assert status(measurer, GOOD) == ("ok", None)


def test_a_choice_that_cannot_be_compiled_is_rejected(measurer: Measurer) -> None:
    assert status(measurer, 4) == ("unbuildable", "RuntimeError: no such tile")
    assert status(measurer, GOOD) == ("ok", None)


def test_a_crash_ends_the_worker_and_nothing_else(measurer: Measurer) -> None:
    assert status(measurer, 2) == ("crashed", "the worker ended with signal 11")
    assert status(measurer, GOOD) == ("ok", None)


@pytest.mark.slow
def test_a_kernel_that_hangs_is_given_up(needs_avx2: None) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with Measurer(
        "x86-64-v3", builder="planted:build", timeout=45, environment={"PYTHONPATH": path}
    ) as measurer:
        kind, error = status(measurer, 3)
        assert (kind, error) == ("timeout", "no answer in 45 s")
        assert status(measurer, GOOD) == ("ok", None)
