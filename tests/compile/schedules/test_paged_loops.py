from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

import_tvm()

from tests.compile.schedules.paged_loops import paged_loops  # noqa: E402

from assay.compile.schedules.paged_problem import PagedProblem, Place  # noqa: E402

SPANS = [(0, 1), (31, 1), (32, 5), (70, 3), (0, 40)]


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({}, None),
        ({"cache_dtype": "float16"}, None),
        ({"cache_dtype": "int8"}, None),
        ({"softcap": 2.0}, 40),
        ({"rotary_dim": 0}, 1),
        ({"rotary_dim": 8, "kv_heads": 4, "cache_dtype": "float16"}, 33),
    ],
    ids=str,
)
def test_against_numpy(
    paged_cases: ModuleType, needs_avx2: None, changes: dict[str, Any], window: int | None
) -> None:
    problem = paged_cases.make_problem(**changes)
    place = Place(layer=1, window=window)
    call = paged_cases.make_call(problem, place, SPANS)
    output, cache, scales = paged_cases.reference(problem, place, call)
    got = paged_cases.build(paged_loops(problem))(problem, call)
    # A value at the middle between two of the cache's may be rounded to either.
    step = {"float32": 1e-6, "float16": 2e-3, "int8": 1}[problem.cache_dtype]
    np.testing.assert_allclose(call["cache"].astype(np.float32), cache.astype(np.float32), atol=step)
    if scales is not None:
        np.testing.assert_allclose(call["scales"], scales, rtol=1e-6)
    np.testing.assert_allclose(
        got, output, atol={"float32": 2e-6, "float16": 1e-3, "int8": 2e-2}[problem.cache_dtype]
    )


def test_positions_outside_the_tables_are_clamped(paged_cases: ModuleType, needs_avx2: None) -> None:
    problem, place = paged_cases.make_problem(), Place(layer=0)
    run = paged_cases.build(paged_loops(problem))
    calls = [paged_cases.make_call(problem, place, [(3, 2)]) for _ in range(2)]
    calls[0]["position_ids"][:] = [[-5, 10_000]]
    calls[1]["position_ids"][:] = [[0, problem.positions - 1]]
    first, second = (run(problem, call) for call in calls)
    np.testing.assert_array_equal(first, second)


def test_the_text_of_a_problem_comes_back(paged_cases: ModuleType) -> None:
    problem, place = paged_cases.make_problem(softcap=30.0), Place(layer=3, window=17)
    assert PagedProblem.from_text(problem.to_text(place)) == (problem, place)


def test_what_does_not_fit(paged_cases: ModuleType) -> None:
    with pytest.raises(ValueError, match="3 heads"):
        paged_cases.make_problem(heads=3)
    with pytest.raises(ValueError, match="turned in pairs"):
        paged_cases.make_problem(rotary_dim=18)
