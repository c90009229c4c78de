from __future__ import annotations

import functools
import re
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.tvm_import import import_tvm

tvm = import_tvm()

from assay.compile.schedules.context import ScheduleContext  # noqa: E402
from assay.compile.schedules.paged_attention import paged_attention  # noqa: E402
from assay.compile.schedules.paged_problem import PAGE_TOKENS, PagedProblem, Place  # noqa: E402
from assay.compile.targets.target import VectorUnit  # noqa: E402
from assay.compile.targets.x86_64_v2 import TARGET as X86_64_V2  # noqa: E402
from assay.compile.targets.x86_64_v3 import TARGET as X86_64_V3  # noqa: E402

EIGHT_LANES = X86_64_V3.vector_unit
SIXTEEN_LANES = VectorUnit(bits=512, registers=32)
SMALL_ERROR = {"float32": 3e-6, "float16": 1e-3, "int8": 2e-2}
# What a value at the middle between two of the cache's may be rounded to.
STEP = {"float32": 1e-6, "float16": 2e-3, "int8": 1}

# (past, new) tokens of the sequences of a call, and the window.
CALLS: dict[str, tuple[list[tuple[int, int]], int | None]] = {
    "single rows": ([(0, 1), (1, 1), (31, 1), (32, 1), (33, 1), (100, 1)], None),
    "one row": ([(70, 1)], None),
    "mixed": ([(0, 1), (1, 3), (31, 2), (32, 9), (33, 1), (0, 0), (100, 1), (0, 70)], None),
    "shared pages": ([(1300, 1), (5, 1), (700, 1)], None),
    "windows": ([(0, 1), (31, 2), (100, 1), (64, 40), (90, 1)], 33),
    "shared window": ([(1300, 1), (900, 1)], 700),
}


@functools.cache
def build(cases: ModuleType, problem: PagedProblem, unit: VectorUnit, cpu: str) -> Any:
    """The kernel, compiled once for all tests."""
    return cases.build(paged_attention(problem, ScheduleContext(unit=unit)), cpu)


def make_problem(cases: ModuleType, group: int, dim: int, dtype: str, **changes: Any) -> PagedProblem:
    sizes = {"heads": 2 * group, "kv_heads": 2, "head_dim": dim, "rotary_dim": dim, "positions": 2048}
    problem: PagedProblem = cases.make_problem(
        **{**sizes, "scale": dim**-0.5, "cache_dtype": dtype, **changes}
    )
    return problem


def garbage(call: dict[str, np.ndarray], problem: PagedProblem) -> None:
    """Make of all slots of the cache that hold no past token what would spoil any result."""
    cache, table = call["cache"], call["page_table"]
    used = np.zeros((cache.shape[0], PAGE_TOKENS), bool)
    for pages, past in zip(table, call["past_lengths"], strict=True):
        for token in range(past):
            used[pages[token // PAGE_TOKENS], token % PAGE_TOKENS] = True
    if problem.quantized:
        np.moveaxis(call["scales"], -1, 1)[~used] = np.nan
        return
    for page, slots in enumerate(used):
        cache[page, :, 0].reshape(*cache.shape[1:2], cache.shape[3], -1, PAGE_TOKENS)[..., ~slots] = np.nan
        cache[page, :, 1].reshape(*cache.shape[1:2], cache.shape[3], PAGE_TOKENS, -1)[..., ~slots, :] = np.nan


def compare(cases: ModuleType, kernel: Any, problem: PagedProblem, name: str) -> None:
    spans, window = CALLS[name]
    place = Place(layer=1, window=window)
    call = cases.make_call(problem, place, spans)
    garbage(call, problem)
    before = {key: call[key].copy() for key in ("cache", "scales") if key in call}
    output, cache, scales = cases.reference(problem, place, call)
    got = kernel(problem, call)
    np.testing.assert_allclose(got, output, atol=SMALL_ERROR[problem.cache_dtype], err_msg=name)
    written = (cache != before["cache"]) & ~np.isnan(cache)
    np.testing.assert_array_equal(call["cache"][~written], before["cache"][~written])
    np.testing.assert_allclose(
        call["cache"].astype(np.float32), cache.astype(np.float32), atol=STEP[problem.cache_dtype]
    )
    if scales is not None:
        np.testing.assert_allclose(call["scales"], scales, rtol=1e-6)


def check(
    cases: ModuleType, problem: PagedProblem, *, unit: VectorUnit = EIGHT_LANES, cpu: str = "x86-64-v3"
) -> None:
    kernel = build(cases, problem, unit, cpu)
    for name in CALLS:
        compare(cases, kernel, problem, name)


@pytest.mark.parametrize(
    ("group", "dim", "dtype", "changes"),
    [
        (3, 32, "float16", {}),
        (4, 16, "int8", {"softcap": 3.0, "rotary_dim": 0}),
        (3, 20, "float16", {"rotary_dim": 12}),
    ],
    ids=str,
)
def test_against_numpy(
    paged_cases: ModuleType, needs_avx2: None, group: int, dim: int, dtype: str, changes: dict[str, Any]
) -> None:
    check(paged_cases, make_problem(paged_cases, group, dim, dtype, **changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "dim", "dtype", "changes"),
    [
        (3, 64, "float16", {}),
        (1, 20, "float32", {"rotary_dim": 12}),
        (8, 128, "float16", {"rotary_dim": 64}),
        (1, 64, "int8", {"rotary_dim": 0}),
        (1, 96, "float32", {}),
        (4, 80, "int8", {"rotary_dim": 32}),
        (16, 256, "float16", {"softcap": 50.0, "kv_heads": 1, "heads": 16}),
    ],
    ids=str,
)
def test_against_numpy_at_real_sizes(
    paged_cases: ModuleType, needs_avx2: None, group: int, dim: int, dtype: str, changes: dict[str, Any]
) -> None:
    check(paged_cases, make_problem(paged_cases, group, dim, dtype, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize(
    ("unit", "cpu"),
    [(X86_64_V2.vector_unit, "x86-64-v2"), (SIXTEEN_LANES, "x86-64-v3")],
    ids=["4 lanes", "16 lanes"],
)
def test_other_vectors(
    paged_cases: ModuleType, needs_avx2: None, unit: VectorUnit, cpu: str, dtype: str
) -> None:
    check(paged_cases, make_problem(paged_cases, 3, 40, dtype), unit=unit, cpu=cpu)


def test_threads_and_assembly(paged_cases: ModuleType, needs_avx2: None) -> None:
    """float16 is widened by vectors; the result does not depend on the number of threads."""
    problem = make_problem(paged_cases, 3, 32, "float16")
    kernel = build(paged_cases, problem, EIGHT_LANES, "x86-64-v3")
    source = kernel.assembly()
    assert len(re.findall(r"vcvtph2ps\s+.*%ymm", source)) > 20
    assert not re.search(r"call\w*\s+\W*(__extendhfsf2|__truncsfhf2)", source)
    for name in ("shared pages", "mixed"):
        spans, window = CALLS[name]
        results: dict[int, Any] = {}

        def run(
            threads: int, spans: Any = spans, window: Any = window, results: dict[int, Any] = results
        ) -> None:
            # The pool belongs to the Python thread that first uses it.
            tvm.get_global_func("runtime.config_threadpool")(1, threads)
            call = paged_cases.make_call(problem, Place(layer=0, window=window), spans)
            results[threads] = (kernel(problem, call), call["cache"])

        for threads in (1, 2):
            worker = threading.Thread(target=run, args=(threads,))
            worker.start()
            worker.join()
        for one, two in zip(results[1], results[2], strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_float16_without_instructions_for_it(paged_cases: ModuleType) -> None:
    problem = make_problem(paged_cases, 3, 32, "float16")
    kernel = build(paged_cases, problem, X86_64_V2.vector_unit, "x86-64-v2")
    source = kernel.assembly()
    assert "%ymm" not in source
    assert not re.search(r"call\w*\s+\W*(__extendhfsf2|__truncsfhf2)", source)
    assert "mulps" in source


def test_no_sequences_and_no_rows(paged_cases: ModuleType, needs_avx2: None) -> None:
    """Sequences without rows leave the cache as it is."""
    problem = make_problem(paged_cases, 3, 32, "float16")
    kernel = build(paged_cases, problem, EIGHT_LANES, "x86-64-v3")
    call = paged_cases.make_call(problem, Place(layer=0), [(40, 0), (3, 0)])
    before = call["cache"].copy()
    assert kernel(problem, call).shape == (1, 0, 192)
    np.testing.assert_array_equal(call["cache"], before)


def test_positions_outside_the_tables_are_clamped(paged_cases: ModuleType, needs_avx2: None) -> None:
    problem = make_problem(paged_cases, 3, 32, "float16")
    kernel = build(paged_cases, problem, EIGHT_LANES, "x86-64-v3")
    results = []
    for positions in ([-5, 10_000], [0, problem.positions - 1]):
        call = paged_cases.make_call(problem, Place(layer=0), [(3, 2)])
        call["position_ids"][:] = positions
        results.append((kernel(problem, call), call["cache"]))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
